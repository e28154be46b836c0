"""Ctrl-C before anybody can answer it: put off until the program is ready to end with status 130 and no traceback.

The launcher of the one file starts Python with SIGINT blocked; `python -m scitq` calls `put_off` first of all. The
command line calls `allow` inside the `try` that turns KeyboardInterrupt into a status.
"""

from __future__ import annotations

import _thread
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs


def put_off() -> None:
    """From now on Ctrl-C waits."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def allow() -> None:
    """Ctrl-C works again; one that came meanwhile raises KeyboardInterrupt here."""
    sys.unraisablehook = _again
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _again(ignored: UnraisableHookArgs) -> None:
    """An interrupt that fell where nothing can be raised (a callback of an import lock) is raised again right after it.

    From a thread, for in this function nothing can be raised either.
    """
    if ignored.exc_type is KeyboardInterrupt:
        _thread.start_new_thread(_thread.interrupt_main, ())
    else:
        sys.__unraisablehook__(ignored)
