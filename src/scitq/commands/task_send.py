"""Sending new tasks to the server: in pieces, each of which is created wholly or not at all; a file is checked as a whole before."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from scitq.commands.context import Context
from scitq.commands.progress import Progress
from scitq.errors import ConflictError, ScitqError, from_code
from scitq.util.units import counted

if TYPE_CHECKING:
    from scitq.commands.task_build import Array
    from scitq.commands.task_sources import Lines
    from scitq.model.task import NewTask, TaskSpec
    from scitq.protocol.messages.task import TasksCreated

MOST_TASKS = 2_000
MOST_BYTES = 4 * 1024 * 1024
_TEXTS = 6
"""Tasks and bytes of specs in one request, and the URIs, variables, labels and keys that cost as much as one task more.

The server carries out nothing else meanwhile: 20 ms, for plain tasks and for rich ones (docs/benchmarks.md)."""
_MOST_KEYS = 50_000
_MOST_TOLD = 20

Batch = tuple[list["TaskSpec"], list["NewTask"]]
Place = Callable[[int], str]
"""How to name the task at a position, so that people find it: `tasks.jsonl, line 7`."""


def batches(pairs: Iterable[tuple[TaskSpec, NewTask]]) -> Iterator[Batch]:
    """Specs and tasks in pieces that fit into a request each (MOST_TASKS); tasks that share a spec object go on sharing it."""
    specs: list[TaskSpec] = []
    tasks: list[NewTask] = []
    positions: dict[int, int] = {}
    size, weight = 0, 0.0
    for spec, task in pairs:
        if weight >= MOST_TASKS or size >= MOST_BYTES:
            yield specs, tasks
            specs, tasks, positions, size, weight = [], [], {}, 0, 0.0
        position = positions.get(id(spec))
        if position is None:
            position = positions[id(spec)] = len(specs)
            specs.append(spec)
            size += len(spec.command) + sum(map(len, spec.inputs)) + sum(map(len, spec.resources)) + 200
            weight += (len(spec.inputs) + len(spec.resources) + len(spec.env)) / _TEXTS
        tasks.append(task if task.spec == position else msgspec.structs.replace(task, spec=position))
        size += 100
        weight += 1 + (len(task.labels) + (task.key is not None)) / _TEXTS
    if tasks:
        yield specs, tasks


class Made:
    """What all requests of one command have created."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.existing: list[int] = []
        self.array_id: int | None = None

    def add(self, answer: TasksCreated) -> None:
        """Take the answer to one request."""
        self.existing += [answer.ids[position] for position in answer.existing]
        self.ids += answer.ids
        self.array_id = answer.array_id if answer.array_id is not None else self.array_id

    def told(self, total: int) -> str:
        """What has come about by now, for a command that ends before its time."""
        return f"{len(self.ids)} of {counted(total, 'task')} were created before this ({self.ids[0]} to {self.ids[-1]})"


def _placed(error: ScitqError, place: Place, offset: int = 0) -> ScitqError:
    where = "" if error.position is None else place(offset + error.position)
    return from_code(error.code, f"{where}: {error.message}") if where else error


def send(
    context: Context, pieces: Iterable[Batch], total: int, array: Array | None, place: Place = lambda _: "", *, is_dry_run: bool = False
) -> Made:
    """Create the tasks of all pieces, one request after the other; with a bar on a terminal when there are several."""
    from scitq.protocol.messages.task import TaskCreate, TasksCreated

    made = Made()
    bar = Progress("creating", is_wanted=not context.out.is_quiet and total > MOST_TASKS)
    try:
        for specs, tasks in pieces:
            is_first_of_array = array is not None and made.array_id is None
            message = TaskCreate(
                specs=specs,
                tasks=tasks,
                is_array=is_first_of_array,
                array_id=made.array_id,
                array_most_running=array.most_running if array is not None and is_first_of_array else None,
                array_max_fails=context.options.max_fails if is_first_of_array else None,
                is_dry_run=is_dry_run,
            )
            made.add(context.api().call(message, TasksCreated, waits_s=120))
            bar.show(len(made.ids), total)
    except ScitqError as error:
        told = _placed(error, place, len(made.ids))
        if made.ids and not is_dry_run:
            raise from_code(told.code, f"{made.told(total)}: {told.message}") from None
        raise told from None
    except KeyboardInterrupt:
        if made.ids and not is_dry_run:
            bar.end()
            print(f"scitq: interrupted: {made.told(total)}", file=sys.stderr)
        raise
    finally:
        bar.end()
    return made


def check_whole(context: Context, lines: Lines, place: Place) -> None:
    """Ask the server for all that it alone knows of the lines of a file (keys, steps, dependencies, storages), creating nothing.

    Lines that ask for the same of it are asked for once, so that a hundred thousand plain ones cost nothing.
    """
    _check_keys(context, lines, place)
    own = {task.key for task in lines.tasks if task.key is not None}
    schemes = [_schemes(spec) for spec in lines.specs]
    seen: dict[object, int] = {}
    for position, task in enumerate(lines.tasks):
        outside = tuple(tuple(key for key in keys if key not in own) for keys in (task.depends_on_keys, task.after_any_keys))
        asked = (task.step_id, task.depends_on, task.after_any, outside, schemes[task.spec])
        if any((task.step_id, task.depends_on, task.after_any, *outside, schemes[task.spec])):
            seen.setdefault(asked, position)
    positions = list(seen.values())
    for first in range(0, len(positions), MOST_TASKS):
        some = positions[first : first + MOST_TASKS]
        tasks = [_without_own(lines.tasks[position], own, number) for number, position in enumerate(some)]
        piece = [lines.specs[lines.tasks[position].spec] for position in some], tasks
        send(context, [piece], len(some), None, functools.partial(_place_of, place, some), is_dry_run=True)


def _place_of(place: Place, positions: list[int], at: int) -> str:
    return place(positions[at])


def _check_keys(context: Context, lines: Lines, place: Place) -> None:
    from scitq.model.task import digest
    from scitq.protocol.messages.task import KeysChecked, TaskCheckKeys

    keyed = [(position, task.key, task) for position, task in enumerate(lines.tasks) if task.key is not None]
    for first in range(0, len(keyed), _MOST_KEYS):
        some = keyed[first : first + _MOST_KEYS]
        digests = {key: digest(lines.specs[task.spec], task) for _, key, task in some}
        taken = context.api().call(TaskCheckKeys(digests=digests), KeysChecked, waits_s=60).taken
        told = [
            f"{place(position)}: the key {key!r} belongs to task {taken[key]}, which has other content"
            for position, key, _ in some
            if key in taken
        ]
        if told:
            more = [f"… and {len(told) - _MOST_TOLD} more"] if len(told) > _MOST_TOLD else []
            raise ConflictError("nothing was created:\n" + "\n".join(told[:_MOST_TOLD] + more))


def _schemes(spec: TaskSpec) -> frozenset[str]:
    uris: Sequence[str] = (*spec.inputs, *spec.resources, *(uri for uri in (spec.output, spec.publish) if uri))
    return frozenset(uri.partition("://")[0] for uri in uris)


def _without_own(task: NewTask, own: set[str], spec: int) -> NewTask:
    return msgspec.structs.replace(
        task,
        spec=spec,
        key=None,
        depends_on_keys=tuple(key for key in task.depends_on_keys if key not in own),
        after_any_keys=tuple(key for key in task.after_any_keys if key not in own),
    )
