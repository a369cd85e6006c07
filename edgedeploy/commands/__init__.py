"""The commands of ``deploy``, one a file; each imports what it needs when it runs, so that help stays quick."""
