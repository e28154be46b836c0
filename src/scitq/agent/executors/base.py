"""What runs commands: the contract of all executors (tests/contract/executors runs one suite over them)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from scitq.agent.folders import TaskFolders
from scitq.agent.keeper.messages import Key
from scitq.errors import ScitqError
from scitq.model.task import Use
from scitq.protocol.messages.agent import Assignment
from scitq.storage.base import Cancel

FOLDER_OF_SCRIPT = "/scitq/script"


class ImageError(ScitqError):
    """An image can't be had; the message is in the registry's words."""

    code = "image"


@dataclass(frozen=True, slots=True)
class Program:
    """What a task executes. words: after the image's entry point; entrypoint: in its place; script: bytes of the file."""

    words: list[str]
    entrypoint: list[str] | None = None
    script: bytes | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt, ready to run."""

    key: Key
    assignment: Assignment
    folders: TaskFolders
    resource: Path
    program: Program
    env: dict[str, str] = field(repr=False)
    log_cap: int = 10 << 30
    network: str = "bridge"
    blob: bytes = b""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job ended.

    status: exit status, 128 + N after signal N, None when it never started. error: why it did not start or was lost.
    cause: empty after a plain exit; start, oom, lost, image. log: the framed log when there is no file. log_bytes: its size.
    """

    key: Key
    status: int | None
    error: str = ""
    cause: str = ""
    is_own_fault: bool = False
    use: Use | None = None
    wall_s: float = 0.0
    log: bytes | None = None
    log_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Adopted:
    """A job of an earlier life of this agent that still runs, or ended meanwhile (its Ended follows)."""

    key: Key
    blob: bytes
    age_s: float
    is_running: bool


class Sink(Protocol):
    """Where executors tell what happens; from any thread."""

    def started(self, key: Key) -> None:
        """The command runs."""

    def grown(self, key: Key, log_bytes: int) -> None:
        """The log file holds so many bytes now."""

    def ended(self, ended: Ended) -> None:
        """It is over, and all of its log is written."""


class Executor(Protocol):
    """Runs jobs. No method but `prepare` and `fix_permissions` waits for anything slow."""

    name: str

    def prepare(self, image: str, credentials: dict[str, dict[str, str]], cancel: Cancel) -> None:
        """Have the image here; in a thread of its own. Raises ImageError, CancelledError."""

    def start(self, job: Job) -> None:
        """Begin; `Sink.started` or `Sink.ended` follows."""

    def signal(self, key: Key, number: int) -> None:
        """Send a signal to the job; a job that is gone is fine."""

    def freeze(self, key: Key, is_frozen: bool) -> None:
        """Stop all its processes where they are, or let them go on."""

    def adopt(self) -> list[Adopted]:
        """What an earlier life left; called once, before anything is started."""

    def release(self, key: Key) -> None:
        """The server knows the end: drop what is kept of the job."""

    def fix_permissions(self, folder: Path, image: str) -> None:
        """Make what a container left in `folder` readable and deletable by this agent."""

    def close(self) -> None:
        """End; jobs that still run are let be."""
