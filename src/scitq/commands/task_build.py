"""From what was said of tasks to what the server is sent; arrays share one spec unless a placeholder makes them differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from scitq.broker import checks
from scitq.commands import selection
from scitq.commands.task_fields import KEY, Values
from scitq.errors import UsageError
from scitq.model.task import NewTask, TaskSpec

_ARRAY = re.compile(r"([^%]*)(?:%(\d{1,9}))?", re.ASCII)
_PIECE = re.compile(r"(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?", re.ASCII)
MOST_ELEMENTS = 10_000_000
MOST_DEPENDENCIES = 100_000


class Array(NamedTuple):
    """Elements of an array, and how many of them may run at once (None: any number)."""

    indices: Sequence[int]
    most_running: int | None
    items: Sequence[str] | None = None


def parse_array(text: str) -> Array:
    """`1-1000`, `1-100:5`, `1-100:5%20` (at most 20 at once), `1,4,7-9`."""
    whole = _ARRAY.fullmatch(text.strip())
    found = [_PIECE.fullmatch(piece.strip()) for piece in whole[1].split(",")] if whole else [None]
    ranges = []
    for piece in found:
        if whole is None or piece is None:
            raise UsageError(f"{text!r} is no array; write 1-1000, or 1-100:5, or 1-100%20 for at most 20 at once, or 1,4,7-9")
        stride = int(piece[3] or 1)
        ranges.append(range(int(piece[1]), int(piece[2] or piece[1]) + 1, stride) if stride else range(0))
        if not ranges[-1]:
            raise UsageError(f"the array {text!r} has no element{'' if len(found) == 1 else f' in {piece[0]}'}")
    most = int(whole[2]) if whole and whole[2] else None
    count = sum(map(len, ranges))
    if count > MOST_ELEMENTS:
        raise UsageError(f"the array {text!r} has {count} elements; at most {MOST_ELEMENTS}")
    indices: Sequence[int] = ranges[0] if len(ranges) == 1 else [index for piece in ranges for index in piece]
    if len(ranges) > 1 and len(set(indices)) < count:
        raise UsageError(f"the array {text!r} names an element twice")
    if most == 0:
        raise UsageError(f"the array {text!r} lets none run; write a number above 0 after the %")
    return Array(indices, most)


class AnyScheme(frozenset[str]):
    """Stands for storages that only the server knows: it checks their names."""

    def __contains__(self, _name: object) -> bool:
        return True


def _requests(pairs: Sequence[tuple[str, str]]) -> dict[str, int]:
    found = {}
    for name, count in pairs:
        if not (count.isascii() and count.isdigit() and int(count) > 0):
            raise UsageError(f"request {name}={count}: write a whole number above 0 after the =")
        found[name] = int(count)
    return found


def spec_of(values: Values) -> TaskSpec:
    """The part that does not change, checked as the server will; UsageError for what could never run."""
    for name in ("container", "command"):
        if not str(values.get(name, "")).strip():
            raise UsageError(f"--{name} is {'empty' if name in values else 'missing'}; a task needs a container (or `bare`) and a command")
    spec = TaskSpec(
        container=values["container"],
        command=values["command"],
        shell=values.get("shell"),
        entrypoint=values.get("entrypoint"),
        inputs=tuple(values.get("input", ())),
        resources=tuple(values.get("resource", ())),
        output=values.get("output"),
        publish=values.get("publish"),
        skip_if_exists=values.get("skip_if_exists", False),
        env=dict(values.get("env", ())),
        cpus=values.get("cpus"),
        mem_gib=values.get("mem"),
        gpus=values.get("gpus"),
        disk_gb=values.get("disk"),
        requests=_requests(values.get("request", ())),
        time_limit_s=values.get("time_limit"),
        time_request_s=values.get("time_request"),
        retry_on=tuple(values.get("retry_on", ())),
    )
    checks.check_spec(spec, AnyScheme())
    return spec


def task_of(values: Values, last_id: Callable[[], int | None] = lambda: None) -> NewTask:
    """The part that is each task's own. `last_id` finds what `last` means in depends_on and after_any."""

    def keys(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(text.removeprefix(KEY) for text in values.get(name, ()) if text.startswith(KEY)))

    def ids(name: str) -> tuple[int, ...]:
        is_last, ranges = selection.ranges_of([text for text in values.get(name, ()) if not text.startswith(KEY)])
        if sum(len(range(first, last + 1, stride)) for first, last, stride in ranges) > MOST_DEPENDENCIES:
            raise UsageError(f"{name}: more than {MOST_DEPENDENCIES} tasks")
        found = dict.fromkeys(one for first, last, stride in ranges for one in range(first, last + 1, stride))
        if is_last:
            number = last_id()
            if number is None:
                raise UsageError(f"{name}: you have no last task")
            found[number] = None
        return tuple(found)

    task = NewTask(
        name=values.get("name", ""),
        labels=dict(values.get("label", ())),
        key=values.get("key"),
        step_id=values.get("step_id"),
        depends_on=ids("depends_on"),
        after_any=ids("after_any"),
        depends_on_keys=keys("depends_on"),
        after_any_keys=keys("after_any"),
        cancel_when_dependency_fails=values.get("on_dependency_failure") == "cancel",
        priority=values.get("priority", 0),
        retries=values.get("retry", 0),
        is_held=values.get("hold", False),
    )
    checks.check_task(task, 0, 1)
    return task


def _fill(text: str, index: int, item: str | None) -> str:
    """Replace {index} and {item} in one pass, so that an item that holds `{index}` stays as it is."""
    return re.sub(r"\{(index|item)\}", lambda match: str(index) if match[1] == "index" else match[0] if item is None else item, text)


def _is_open(spec: TaskSpec, has_items: bool) -> bool:
    parts = [spec.command, spec.output or "", spec.publish or "", *spec.inputs, *spec.resources]
    return any("{index}" in part or (has_items and "{item}" in part) for part in parts)


def _filled_spec(spec: TaskSpec, index: int, item: str | None) -> TaskSpec:
    filled = msgspec.structs.replace(
        spec,
        command=_fill(spec.command, index, item),
        output=None if spec.output is None else _fill(spec.output, index, item),
        publish=None if spec.publish is None else _fill(spec.publish, index, item),
        inputs=tuple(_fill(text, index, item) for text in spec.inputs),
        resources=tuple(_fill(text, index, item) for text in spec.resources),
    )
    checks.check_spec(filled, AnyScheme())
    return filled


def elements_of(array: Array, spec: TaskSpec, task: NewTask) -> Iterator[tuple[TaskSpec, NewTask]]:
    """The spec and the task of every element; the very same spec object where elements do not differ. A key gets `:index` added."""
    is_open = _is_open(spec, array.items is not None)
    for position, index in enumerate(array.indices):
        item = None if array.items is None else array.items[position]
        try:
            own = _filled_spec(spec, index, item) if is_open else spec
        except UsageError as error:
            raise UsageError(f"element {index}{'' if item is None else f' ({item[:60]!r})'}: {error.message}") from None
        yield (
            own,
            msgspec.structs.replace(
                task,
                name=_fill(task.name, index, item),
                key=None if task.key is None else f"{task.key}:{index}",
                depends_on_keys=tuple(_fill(key, index, item) for key in task.depends_on_keys),
                after_any_keys=tuple(_fill(key, index, item) for key in task.after_any_keys),
                array_index=index,
                item=item,
            ),
        )
