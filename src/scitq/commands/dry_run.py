"""What `task create --dry-run` shows: argv, mounts, URIs, and the workers that fit (contract CRE-16)."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from scitq.commands.context import Context
from scitq.errors import EXIT_OK
from scitq.model.needs import Capacity, of_spec
from scitq.model.task import BARE
from scitq.util.units import counted

if TYPE_CHECKING:
    from scitq.model.task import NewTask, TaskSpec
    from scitq.protocol.messages.worker import WorkerRow

MOST_SHOWN = 10


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """One task as it would run."""

    name: str
    container: str
    argv: list[str]
    mounts: list[str]
    inputs: list[str]
    resources: list[str]
    output: str | None
    publish: str | None
    fits: list[int]
    misfits: dict[str, str]


def argv_of(spec: TaskSpec) -> list[str]:
    """The arguments that the entry point (or the kernel, when bare) is given, as far as they are known without the image."""
    words = shlex.split(spec.command) if spec.shell is None else [*shlex.split(spec.shell), "-c", spec.command]
    return [*shlex.split(spec.entrypoint or ""), *words]


def misses(worker: WorkerRow, spec: TaskSpec, step_id: int | None) -> str:
    """Why the worker can't take it; empty when it can."""
    if worker.step_id != step_id:
        return f"it serves {'no step' if worker.step_id is None else f'step {worker.step_id}'}"
    if spec.container == BARE and not worker.allows_bare:
        return "it takes no bare tasks"
    if spec.container != BARE and not set(worker.runtimes) - {BARE}:
        return "it has no container runtime"
    has = worker.hardware
    if has is None:
        return "it has not told its hardware yet"
    return Capacity(has.cpus, has.mem_gib, has.gpus, has.disk_gb, has.requests).misses(of_spec(spec))


def show(context: Context, pieces: Sequence[tuple[list[TaskSpec], list[NewTask]]]) -> int:
    """Print the first ten tasks, or all of them as JSON."""
    from scitq.protocol.messages.worker import WorkerList, WorkerRows

    workers = context.api().call(WorkerList(), WorkerRows).rows
    planned = []
    for specs, tasks in pieces:
        for task in tasks:
            spec = specs[task.spec]
            why = {worker.id: misses(worker, spec, task.step_id) for worker in workers}
            mounts = ["/input (writable)", "/resource (read-only)", "/output (writable)"]
            planned.append(
                Planned(
                    name=task.name,
                    container=spec.container,
                    argv=argv_of(spec),
                    mounts=["$INPUT (writable)", "$RESOURCE (read-only)", "$OUTPUT (writable)"] if spec.container == BARE else mounts,
                    inputs=list(spec.inputs),
                    resources=list(spec.resources),
                    output=spec.output,
                    publish=spec.publish,
                    fits=[one for one, reason in why.items() if not reason],
                    misfits={str(one): reason for one, reason in why.items() if reason},
                )
            )
    out = context.out
    if out.is_json:
        out.json(planned)
        return EXIT_OK
    for one in planned[:MOST_SHOWN]:
        out.fields(
            [
                ("name", one.name),
                ("container", one.container),
                ("argv", shlex.join(one.argv)),
                ("folders", ", ".join(one.mounts)),
                *(("resource", uri) for uri in one.resources),
                *(("input", uri) for uri in one.inputs),
                ("output", one.output or ""),
                ("publish", one.publish or ""),
                ("fitting workers", ", ".join(map(str, one.fits)) or "none"),
                *((f"worker {worker} not", reason) for worker, reason in one.misfits.items()),
            ]
        )
        out.text("")
    context.note(f"{counted(len(planned), 'task')} would be created; nothing was")
    return EXIT_OK
