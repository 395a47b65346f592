"""Becomes another program that the kernel kills when the one that asked for it is gone, however that one ended.

Run as a script, ``python -I -S bound_launch.py PARENT_PID PROGRAM ARGUMENT…``. It stays one process: what it becomes has
its pid, so nobody stands between a program and its signals.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_CANNOT = 127


def main(arguments: list[str]) -> int:
    """Returns only when the parent is gone already or the program cannot be started."""
    parent, program = int(arguments[0]), arguments[1:]
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        print(f"prctl: {os.strerror(ctypes.get_errno())}", file=sys.stderr)
        return _CANNOT
    # It may have died before the kernel was told; then somebody else is our parent now.
    if os.getppid() != parent:
        return _CANNOT
    try:
        os.execv(program[0], program)  # noqa: S606 - no shell is the point
    except OSError as error:
        print(f"{program[0]}: {error.strerror}", file=sys.stderr)
    return _CANNOT


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
