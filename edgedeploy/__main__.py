"""``python -m edgedeploy`` is ``deploy``."""

from edgedeploy.cli import main

if __name__ == "__main__":
    main()
