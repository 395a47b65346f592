"""Becomes the mover as soon as the agent has written down which process it is: started by file name, standard library only.

    python -I -S launch.py PROGRAM ARGUMENT…

The word to go comes on standard input. An agent that was killed before it could say it closes the input, and nothing is
begun: there is never a mover that no journal knows.
"""

from __future__ import annotations

import os
import sys

GO = b"go\n"


def main() -> int:
    """Does not come back where all is well."""
    if os.read(0, len(GO)) != GO:
        return 1
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.execv(sys.executable, [sys.executable, "-I", "-S", *sys.argv[1:]])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    sys.exit(main())
