"""A worker in a fresh interpreter: the job comes pickled from the parent's own memory through standard input."""

import os
import pickle
import sys


def main() -> None:
    """Read (import path, job, limits, descriptor, parent) and serve."""
    path, packed = pickle.load(sys.stdin.buffer)
    sys.path[:] = path
    from edgedeploy.sandbox.worker import serve

    job, limits, descriptor, parent = pickle.loads(packed)
    os._exit(serve(job, limits, descriptor, parent))


if __name__ == "__main__":
    main()
