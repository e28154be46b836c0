"""Containers without cgroups of their own (an ordinary user's on cgroups v1): what an engine can't do is done to their processes."""

from __future__ import annotations

import os
import shutil
import signal

from scitq.agent.keeper.child import descendants
from scitq.util import proc

_ROUNDS = 5
"""A process may start others while its container is frozen: it is looked at again until all stand still."""


def freeze(first_pid: int, is_frozen: bool) -> None:
    """Stop the container of this first process where it is, or let it go on."""
    done: set[int] = set()
    for _ in range(_ROUNDS):
        fresh = {first_pid, *descendants(first_pid)} - done
        if not fresh:
            return
        _signal(sorted(fresh), signal.SIGSTOP if is_frozen else signal.SIGCONT)
        done |= fresh


def _signal(pids: list[int], number: signal.Signals) -> None:
    refused = []
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
        except PermissionError:
            refused.append(str(pid))
    # users of the image other than its root have subordinate numbers: only podman's namespace reaches them
    if refused and (program := shutil.which("podman")):
        proc.run([program, "unshare", "kill", f"-{number.name.removeprefix('SIG')}", *refused], timeout_s=60)
