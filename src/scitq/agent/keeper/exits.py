"""When a child ends: a descriptor that epoll can watch."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress


def watch(pid: int) -> int:
    """A descriptor that becomes readable when the child `pid` has ended, which stays to be reaped; the caller closes it.

    A pidfd; before Linux 5.3 (RHEL 7 and 8, Ubuntu 18.04) a pipe that a thread closes which waits for the child.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno not in {errno.ENOSYS, errno.EPERM}:  # EPERM: an old container engine's filter of system calls
            raise
    ended, held = os.pipe2(os.O_CLOEXEC)

    def wait() -> None:
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        os.close(held)

    threading.Thread(target=wait, name=f"exit of {pid}", daemon=True).start()
    return ended
