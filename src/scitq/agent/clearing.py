"""Ending what an agent that was killed has left with its container engine (`scitq agent --clear`).

A container belongs to its engine, not to the agent that had it started. Each carries the lasting name of its agent,
which lies in the agent's own folder; nothing else is touched.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from scitq.agent.executors.base import Ended
from scitq.agent.executors.detect import engine
from scitq.agent.keeper.messages import Key
from scitq.agent.main import lock_folder, read_uid
from scitq.errors import ConflictError
from scitq.util import log as logs

logger = logging.getLogger(__name__)


def run(work_dir: Path, runtime: str, log_level: str) -> int:
    """Remove the containers of the agent of `work_dir`, which must not live; returns the exit status."""
    logs.set_up(log_level)
    uid = read_uid(work_dir)
    if not uid:
        return 0
    lock = lock_folder(work_dir)
    if lock is None:
        raise ConflictError(f"an agent works in {work_dir}; its containers are its own")
    try:
        found = engine(runtime, uid, work_dir, _Unheard())
        if found is not None:
            logger.info("%d containers of %s removed", found.clear(), uid)
            found.close()
    finally:
        os.close(lock)
    return 0


class _Unheard:
    """Nothing is started here, so there is nothing to be told."""

    def started(self, key: Key) -> None:
        """Of no use here."""

    def grown(self, key: Key, log_bytes: int) -> None:
        """Of no use here."""

    def ended(self, ended: Ended) -> None:
        """Of no use here."""
