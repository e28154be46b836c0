"""Ctrl-C before anybody can answer it: put off until the program is ready to end with status 130 and no traceback.

The launcher of the one file starts Python with SIGINT blocked; `python -m scitq` calls `put_off` first of all. The
command line calls `allow` inside the `try` that turns KeyboardInterrupt into a status.
"""

from __future__ import annotations

import signal


def put_off() -> None:
    """From now on Ctrl-C waits."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def allow() -> None:
    """Ctrl-C works again; one that came meanwhile raises KeyboardInterrupt here."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
