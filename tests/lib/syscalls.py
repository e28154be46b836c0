"""Run a program where some system calls fail, as on an old kernel: `syscalls.py FIRST-LAST=ERRNO... -- PROGRAM [ARGUMENT...]`.

The numbers are those of x86-64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from pathlib import Path

LINUX_3_10 = "314-999=ENOSYS"
"""What the kernel of CentOS 7 does not have."""
NO_FLOCK = "73-73=ENOLCK"
"""A file system without locks."""

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2
_LOAD, _IF_AT_LEAST, _RETURN = 0x20, 0x35, 0x06
_ERRNO, _ALLOW = 0x00050000, 0x7FFF0000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def failing(calls: str, *argv: str | Path) -> list[str]:
    """The words that run `argv` with `calls` failing, in all that it starts too."""
    return [sys.executable, "-I", str(Path(__file__)), calls, "--", *[str(word) for word in argv]]


def fail(calls: list[str]) -> None:
    """From now on these calls fail in this process and all that it starts."""
    steps = [(_LOAD, 0, 0, 0)]
    for one in calls:
        numbers, _, name = one.partition("=")
        first, last = map(int, numbers.split("-"))
        steps += [(_IF_AT_LEAST, 0, 2, first), (_IF_AT_LEAST, 1, 0, last + 1), (_RETURN, 0, 0, _ERRNO | getattr(errno, name))]
    steps.append((_RETURN, 0, 0, _ALLOW))
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.cast(code, ctypes.c_void_p).value)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    at = sys.argv.index("--")
    fail(sys.argv[1:at])
    os.execvp(sys.argv[at + 1], sys.argv[at + 1 :])
