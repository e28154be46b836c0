"""One attempt at a task on this worker: what is known of it, and what its end is called."""

from __future__ import annotations

import base64
import signal
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import msgspec

from scitq.agent.executors.base import Ended
from scitq.agent.folders import TaskFolders
from scitq.agent.keeper.messages import Key
from scitq.agent.loop import Timer
from scitq.model.task import BARE, Use
from scitq.protocol.messages.agent import Assignment
from scitq.storage.base import Cancel
from scitq.util import files
from scitq.util.units import format_bytes


class Phase(StrEnum):
    """Where an attempt stands here; the letters are those of the server."""

    ACCEPTED = "C"
    FETCHING = "D"
    READY = "O"
    STARTING = "o"
    RUNNING = "R"
    SHIPPING = "U"
    SHIPPING_FAILED = "V"
    OVER = "E"


@dataclass(slots=True, eq=False)
class Attempt:
    """Belongs to the loop's thread; `cancel` may be seen from others."""

    assignment: Assignment
    folders: TaskFolders
    phase: Phase = Phase.ACCEPTED
    resource: Path | None = None
    cancel: Cancel = field(default_factory=Cancel)
    wish: str = ""
    """kill, stop or limit, once somebody wants it to end."""
    wish_reason: str = ""
    is_unwanted: bool = False
    is_frozen: bool = False
    has_lease: bool = False
    gpus: tuple[int, ...] = ()
    use: Use = field(default_factory=Use)
    exit_status: int | None = None
    succeeded: bool = False
    cause: str = ""
    reason: str = ""
    age_s: float = 0.0
    keeps_files: bool = False
    timers: list[Timer] = field(default_factory=list)

    @property
    def key(self) -> Key:
        """Task id and attempt number."""
        return self.assignment.task_id, self.assignment.attempt

    @property
    def is_bare(self) -> bool:
        """Whether it runs without a container."""
        return self.assignment.spec.container == BARE

    @property
    def letter(self) -> str:
        """The status that the server should know it in."""
        return {Phase.STARTING: "O", Phase.OVER: "R"}.get(self.phase, self.phase.value)

    @property
    def needs_fetch(self) -> bool:
        """Whether there is anything to wait for before it can run."""
        spec = self.assignment.spec
        return bool(spec.inputs or spec.resources or spec.skip_if_exists or not self.is_bare)

    def stop_timers(self) -> None:
        """None of them calls any more."""
        for timer in self.timers:
            timer.cancel()
        self.timers.clear()

    def conclude(self, ended: Ended) -> None:
        """Set exit status, success, cause and reason from how the command ended and who had wished it."""
        spec = self.assignment.spec
        self.exit_status = ended.status
        if ended.use is not None:
            self.use = merged(self.use, ended.use)
        if self.wish == "limit":
            self.cause, self.reason = "limit", "time limit"
        elif self.wish == "kill" or (self.wish == "stop" and ended.status != 0):
            self.cause, self.reason = "killed", self.wish_reason or ("killed" if self.wish == "kill" else "stopped")
        elif ended.cause == "oom":
            limit = f" (limit {format_bytes(spec.mem_gib * (1 << 30))})" if spec.mem_gib else ""
            self.cause, self.reason = "oom", f"out of memory{limit}"
        elif ended.cause:
            self.cause, self.reason = ended.cause, ended.error
        elif ended.status != 0:
            self.cause, self.reason = "exit", explain(ended.status, spec.shell)
        self.succeeded = not self.cause


def merged(use: Use, more: Use) -> Use:
    """`use` with what `more` knows."""
    known = {name: value for name in more.__struct_fields__ if (value := getattr(more, name)) is not None}
    return msgspec.structs.replace(use, **known)


def explain(status: int | None, shell: str | None) -> str:
    """An exit status in words."""
    match status:
        case None:
            return "ended without an exit status"
        case 125:
            return "exit status 125: the container runtime could not run it, or the command itself said so"
        case 126:
            return "exit status 126: found, but not executable"
        case 127:
            return "exit status 127: command not found" + ("" if shell else " (a command with | > && or $ needs --shell sh)")
        case 137:
            return "exit status 137: killed by SIGKILL, not by scitq; often the system was short of memory"
        case _ if 128 < status < 193:
            try:
                return f"exit status {status}: killed by {signal.Signals(status - 128).name}"
            except ValueError:
                return f"exit status {status}"
        case _:
            return f"exit status {status}"


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """What the journal of an attempt holds. stage: running, exited, over or kept (only the files of a failed upload)."""

    assignment: Assignment
    stage: str
    runtime: str
    at_ms: int
    resource: str = ""
    has_lease: bool = False
    use: Use = Use()
    exit_status: int | None = None
    succeeded: bool = False
    cause: str = ""
    reason: str = ""
    tail: str = ""
    log_bytes: int = 0
    """All of the log, for kept files: the server has it by then."""


_decoder = msgspec.json.Decoder(Saved)


def save(attempt: Attempt, stage: str, runtime: str, at_ms: int, tail: bytes = b"", log_bytes: int = 0) -> None:
    """Write the journal, so that a later life of the agent can go on from here."""
    saved = Saved(
        assignment=attempt.assignment,
        stage=stage,
        runtime=runtime,
        at_ms=at_ms,
        resource=str(attempt.resource or ""),
        has_lease=attempt.has_lease,
        use=attempt.use,
        exit_status=attempt.exit_status,
        succeeded=attempt.succeeded,
        cause=attempt.cause,
        reason=attempt.reason,
        tail=base64.b64encode(tail).decode(),
        log_bytes=log_bytes,
    )
    files.write_atomically(attempt.folders.state, msgspec.json.encode(saved), 0o600)


def load(folders: TaskFolders) -> Saved | None:
    """The journal in `folders`, or None when there is none that can be read."""
    try:
        return _decoder.decode(folders.state.read_bytes())
    except (OSError, msgspec.MsgspecError, UnicodeError):
        return None


def restored(saved: Saved, folders: TaskFolders) -> Attempt:
    """The attempt as it was."""
    return Attempt(
        saved.assignment,
        folders,
        resource=Path(saved.resource) if saved.resource else None,
        has_lease=saved.has_lease,
        use=saved.use,
        exit_status=saved.exit_status,
        succeeded=saved.succeeded,
        cause=saved.cause,
        reason=saved.reason,
    )
