"""The data steps of an agent without the agent: a work folder, a storage that is a folder, and what tasks find."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from scitq.agent import data as shared
from scitq.agent.actions.chain import everything_below
from scitq.agent.cache import ResourceCache
from scitq.agent.data import open_cache
from scitq.agent.folders import DataContext, TaskFolders
from scitq.agent.steps import fetch
from scitq.model.task import TaskSpec
from scitq.protocol.messages.agent import Assignment
from scitq.storage.base import Cancel


class Worker:
    """A work folder and a storage `st` whose folder is `source`."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.source = root / "storage"
        self.source.mkdir(parents=True)
        self.context = DataContext({"st": {"type": "local", "root": str(self.source)}}, {"min_free_disk": "1M", **settings}, root / "work")
        self.number = 0
        shared._caches.pop(self.context.work_dir, None)  # pytest gives the folder of a test that passed to the next one

    def put(self, name: str, data: bytes = b"data") -> None:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def folders(self) -> TaskFolders:
        """Those of a new task."""
        self.number += 1
        folders = TaskFolders(self.context.work_dir / "tasks" / str(self.number))
        folders.make()
        return folders

    def run(
        self,
        *,
        inputs: Sequence[str] = (),
        resources: Sequence[str] = (),
        container: str = "alpine",
        folders: TaskFolders | None = None,
        cancel: Cancel | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> tuple[TaskFolders, fetch.Prepared]:
        spec = TaskSpec(container=container, command="true", inputs=tuple(inputs), resources=tuple(resources))
        folders = folders or self.folders()
        return folders, fetch.prepare(Assignment(task_id=1, attempt=1, spec=spec), folders, self.context, progress, cancel or Cancel())

    @property
    def cache(self) -> ResourceCache:
        return open_cache(self.context.work_dir, self.context.settings)


def content(folder: Path) -> dict[str, bytes]:
    """All files below `folder`."""
    return {name: (folder / name).read_bytes() for name in everything_below(folder) if (folder / name).is_file()}


def tar(**members: bytes) -> bytes:
    """A tar.gz of executable files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            opened.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def restart(worker: Worker) -> None:
    """As a new process would: nothing but the disk is kept."""
    shared._caches.clear()
    fetch._leases.clear()
