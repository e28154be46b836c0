"""An executor with its loop and a sink that remembers, without an agent around it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scitq.agent.command import program_of
from scitq.agent.executors.bare import BareExecutor
from scitq.agent.executors.base import Adopted, Ended, Executor, Job
from scitq.agent.folders import TaskFolders
from scitq.agent.keeper.client import KeeperClient
from scitq.agent.loop import Loop
from scitq.agent.tasklog import HEADER
from scitq.model.task import TaskSpec
from scitq.protocol.messages.agent import Assignment
from tests.lib.podman import give
from tests.lib.site import wait_until

_HOLD = """
import sys
from pathlib import Path
from scitq.agent.keeper.client import KeeperClient
held = KeeperClient(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def keeper(folder: Path) -> Iterator[None]:
    """A keeper for `folder`, made by a process of its own: a test's process has threads and must not fork."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    words = [sys.executable, "-c", _HOLD, str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        try:
            yield
        finally:
            assert holder.stdin is not None
            holder.stdin.close()
            holder.wait(30)


class Rig:
    """make: builds the executor under test from this rig (its loop, and `bare`, the executor of the keeper). owner: whose containers are."""

    def __init__(self, folder: Path, make: Callable[[Rig], Executor], keeper_folder: Path | None = None, owner: str | None = None) -> None:
        self.folder, self.owner = folder, owner
        self.loop = Loop()
        self.bare = BareExecutor(self.loop, KeeperClient(keeper_folder or folder), self)
        self.executor = make(self)
        self.begun: list[tuple[int, int]] = []
        self.ends: dict[tuple[int, int], Ended] = {}
        self.sizes: dict[tuple[int, int], int] = {}
        self.adopted: list[Adopted] = list(self.bare.adopt())
        if self.executor is not self.bare:
            self.adopted += self.executor.adopt()
        self._thread = threading.Thread(target=self.loop.run, daemon=True)
        self._thread.start()

    def started(self, key: tuple[int, int]) -> None:
        self.begun.append(key)

    def grown(self, key: tuple[int, int], log_bytes: int) -> None:
        self.sizes[key] = log_bytes

    def ended(self, ended: Ended) -> None:
        self.ends[ended.key] = ended

    def call(self, work: Callable[[], Any]) -> None:
        self.loop.post(work)

    def folders(self, number: int) -> TaskFolders:
        return TaskFolders(self.folder / "tasks" / f"{number}-1")

    def start(self, number: int, command: str, *, container: str, shell: str | None = None, env: dict[str, str] | None = None,
              log_cap: int = 1 << 30, network: str = "none", **spec: Any) -> tuple[int, int]:  # fmt: skip
        """Start a job; its variables are `env` and PATH alone."""
        asked = Assignment(task_id=number, attempt=1, spec=TaskSpec(container=container, command=command, shell=shell, **spec))
        folders = self.folders(number)
        folders.make()
        if self.owner is not None:
            give(folders.root, self.owner)
        variables = {"PATH": "/usr/local/bin:/usr/bin:/bin"} | (env or {})
        job = Job((number, 1), asked, folders, folders.resource, program_of(asked.spec, folders), variables, log_cap, network, b"blob")
        self.call(lambda: self.executor.start(job))
        return job.key

    def end(self, key: tuple[int, int]) -> Ended:
        wait_until(lambda: key in self.ends, f"the end of {key}")
        return self.ends[key]

    def streams(self, key: tuple[int, int]) -> dict[int, bytes]:
        """The bytes of each stream of the log, once the job has ended or so far."""
        ended = self.ends.get(key)
        data = ended.log if ended and ended.log is not None else self.folders(key[0]).log.read_bytes()
        found: dict[int, bytes] = {}
        position = 0
        while position < len(data):
            stream, length = HEADER.unpack_from(data, position)
            position += HEADER.size
            found[stream] = found.get(stream, b"") + data[position : position + length]
            position += length
        return found

    def close(self) -> None:
        """Part from the executor as a killed agent does: nothing is stopped."""
        self.loop.post(self.loop.stop)
        self._thread.join(30)
        if self.executor is not self.bare:
            self.executor.close()
        self.bare.close()
        self.loop.close()
