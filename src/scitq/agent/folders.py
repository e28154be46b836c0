"""The folders of one attempt on the worker's disk, and what the data steps are given besides (docs/agent.md, "Folders")."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class TaskFolders:
    """Where one attempt's files lie. Only `root` is sure to exist before `make` was called.

    A container sees input, output, temp as /input, /output, /tmp and the view that the fetch step made as /resource.
    """

    root: Path

    @property
    def input(self) -> Path:
        """Private and writable."""
        return self.root / "input"

    @property
    def output(self) -> Path:
        """Uploaded at the end."""
        return self.root / "output"

    @property
    def resource(self) -> Path:
        """An empty folder for tasks without resources; the fetch step may name another one."""
        return self.root / "resource"

    @property
    def temp(self) -> Path:
        """Dropped at the end."""
        return self.root / "tmp"

    @property
    def log(self) -> Path:
        """The framed log, a file; absent while nothing was written."""
        return self.root / "log"

    @property
    def script(self) -> Path:
        """The command as a file, when it goes through one."""
        return self.root / "script"

    @property
    def state(self) -> Path:
        """What the agent must know of the attempt after a restart (agent/journal)."""
        return self.root / "state.json"

    def make(self) -> None:
        """Make all folders. Any user of a container may write into them; `root` itself is closed to other accounts."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.input, self.output, self.resource, self.temp):
            folder.mkdir(exist_ok=True)


@dataclass(frozen=True, slots=True)
class DataContext:
    """What the data steps work with.

    storages: the rclone section, with secrets. settings: the server's `Registered.settings`. work_dir: the agent's
    folder, in which the cache lies.
    """

    storages: dict[str, dict[str, str]] = field(repr=False)
    settings: dict[str, Any]
    work_dir: Path
