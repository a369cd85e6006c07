"""A limited process for what a stranger gives: memory, CPU time, files and network are bounded, and it dies alone."""
