"""A task: what never changes once it was sent (TaskSpec), what is asked at creation (NewTask), and what is known of it."""

from __future__ import annotations

from operator import attrgetter
from typing import NewType

import msgspec

TaskId = NewType("TaskId", int)
WorkerId = NewType("WorkerId", int)
StepId = NewType("StepId", int)
WorkflowId = NewType("WorkflowId", int)
UserId = NewType("UserId", int)

MOST_RETRIES = 1000
MOST_PRIORITY = 1_000_000
BARE = "bare"
"""The container name that means: no container (contract, section 0, item 2)."""


class TaskSpec(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, forbid_unknown_fields=True):
    """The part of a task that a worker is sent and that never changes; retries and arrays share it.

    Sizes: memory in GiB, disk in GB; times in seconds.
    """

    container: str
    command: str
    shell: str | None = None
    entrypoint: str | None = None
    inputs: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    output: str | None = None
    publish: str | None = None
    skip_if_exists: bool = False
    env: dict[str, str] = {}
    cpus: float | None = None
    mem_gib: float | None = None
    gpus: int | None = None
    disk_gb: float | None = None
    requests: dict[str, int] = {}
    time_limit_s: float | None = None
    time_request_s: float | None = None
    retry_on: tuple[str, ...] = ()


class NewTask(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, forbid_unknown_fields=True):
    """One task to create. `spec` is an index into the request's specs, so that an array shares one."""

    spec: int = 0
    name: str = ""
    labels: dict[str, str] = {}
    key: str | None = None
    step_id: int | None = None
    depends_on: tuple[int, ...] = ()
    after_any: tuple[int, ...] = ()
    depends_on_new: tuple[int, ...] = ()
    """Positions, in the same request, of tasks that this one waits for."""
    after_any_new: tuple[int, ...] = ()
    depends_on_keys: tuple[str, ...] = ()
    """Keys of tasks that this one waits for: of the caller's tasks, those before it in the same request included."""
    after_any_keys: tuple[str, ...] = ()
    cancel_when_dependency_fails: bool = False
    priority: int = 0
    retries: int = 0
    array_index: int | None = None
    item: str | None = None
    is_held: bool = False


_content = attrgetter(*(name for name in NewTask.__struct_fields__ if name not in {"spec", "depends_on_new", "after_any_new"}))
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def digest(spec: TaskSpec, task: NewTask) -> bytes:
    """What two tasks of one key must share: everything that was asked, but for positions within the request."""
    import hashlib  # the client's quick commands have no use for it

    return hashlib.blake2b(_encode((spec, _content(task))), digest_size=16).digest()


class Use(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a task used, as the agent measured it; None is not known. Bytes and seconds."""

    cpu_s: float | None = None
    peak_memory_bytes: int | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    downloaded_bytes: int | None = None
    uploaded_bytes: int | None = None
