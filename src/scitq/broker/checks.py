"""What a new task must be, checked before anything is stored."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Collection, Sequence
from itertools import chain
from operator import attrgetter

from scitq.errors import UsageError
from scitq.model.task import BARE, MOST_PRIORITY, MOST_RETRIES, NewTask, TaskSpec
from scitq.model.uri_rules import are_plain_uris, check_uris

_IMAGE = re.compile(
    r"(?:(?=[^/]*[.:]|localhost/)[A-Za-z0-9.\-]+(?::\d+)?/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_IMAGE_FILE = re.compile(r"/[^\x00-\x1f\x7f:,]*\.sif")
"""A file on the workers, for apptainer."""
_QUOTING = re.compile(r"""['"\\]""")
"""Without any of these, splitting can't fail."""
_NAME = re.compile(r"[^\x00-\x1f\x7f/]{1,200}")
_RETRY_ON = re.compile(r"exit(?::(?:\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5]))?|oom|lost|upload|limit|fetch|image|start")
MOST_COMMAND_BYTES = 16 * 1024 * 1024
_MOST_TEXT_BYTES = 1024
_MOST_PLAIN_VALUE = 64 * 1024
"""Bytes of a variable's value that are fine whatever its name, which is not longer."""


def _text(what: str, text: str, most: int) -> None:
    if "\0" in text:
        raise UsageError(f"{what} holds a NUL byte")
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise UsageError(f"{what} is no valid UTF-8") from None
    if size > most:
        raise UsageError(f"{what} has {size} bytes; at most {most} are taken")


@functools.lru_cache(maxsize=4096)
def _is_image(name: str) -> bool:
    return name == BARE or (len(name) <= 512 and any(rule.fullmatch(name) for rule in (_IMAGE, _IMAGE_FILE)))


def _is_variable(name: str) -> bool:
    return name.isascii() and name.isidentifier()


common_fields = attrgetter(
    "container", "shell", "entrypoint", "cpus", "mem_gib", "gpus", "disk_gb", "time_limit_s", "time_request_s", "retry_on", "skip_if_exists"
)  # fmt: skip
"""What check_common looks at, and whether skip_if_exists is set: mostly the same in all specs of a request."""


def check_spec(spec: TaskSpec, schemes: frozenset[str]) -> None:
    """UsageError for anything in a spec that could never run; `schemes` are the known storages."""
    check_common(spec)
    check_own(spec, schemes)


def check_common(spec: TaskSpec) -> None:
    """The part of check_spec for which `common_fields` decide alone."""
    if not spec.container.strip():
        raise UsageError("the container is empty; name an image, or 'bare' for none")
    if not _is_image(spec.container):
        raise UsageError(f"{spec.container[:100]!r} is no name of a container image")
    for what, value in (("the shell", spec.shell), ("the entrypoint", spec.entrypoint)):
        if value is not None:
            if not value.strip():
                raise UsageError(f"{what} is empty")
            _text(what, value, 4096)
            _split(what, value)
    for what, number, most in (
        ("cpus", spec.cpus, 100_000),
        ("mem", spec.mem_gib, 1_000_000),
        ("gpus", spec.gpus, 1000),
        ("disk", spec.disk_gb, 1_000_000_000),
        ("time limit", spec.time_limit_s, 1_000_000_000),
        ("time request", spec.time_request_s, 1_000_000_000),
    ):
        if number is not None and not 0 < number <= most:
            raise UsageError(f"{what} must be above 0 and at most {most}, not {number:.15g}")
    for word in spec.retry_on:
        if not _RETRY_ON.fullmatch(word):
            raise UsageError(f"can't retry on {word!r}; known are exit, exit:N, oom, lost, upload, limit, fetch, image, start")


_own_fields = attrgetter("command", "shell", "inputs", "resources", "output", "publish", "env", "requests", "skip_if_exists")


def are_plain(specs: Sequence[TaskSpec], schemes: frozenset[str]) -> bool:
    """Whether check_own would find nothing in any of these specs, told by looking at all together, in a fraction of the time.

    False proves nothing: one of them is out of the ordinary, right or wrong.
    """
    if not specs:
        return True
    commands, shells, inputs, resources, outputs, published, envs, requests, skips = zip(*map(_own_fields, specs), strict=True)
    variables = [env for env in envs if env]
    return not (
        any(requests)
        or any(skips)
        or not all(map(str.strip, commands))
        or not _are_short_ascii(commands, MOST_COMMAND_BYTES)
        or _QUOTING.search("\n".join(command for command, shell in zip(commands, shells, strict=True) if shell is None))
        or not all(map(_is_variable, set(chain.from_iterable(variables))))
        or not _are_short_ascii([value for env in variables for value in env.values()], _MOST_PLAIN_VALUE)
        or not are_plain_uris([*chain.from_iterable(inputs), *chain.from_iterable(resources)], [*outputs, *published], schemes)
    )


def _are_short_ascii(texts: Collection[str], most: int) -> bool:
    together = "".join(texts)
    return together.isascii() and "\0" not in together and max(map(len, texts), default=0) <= most


def check_own(spec: TaskSpec, schemes: frozenset[str]) -> None:
    """The rest of check_spec: what each spec has for itself."""
    command = spec.command
    if not command or command.isspace():
        raise UsageError("the command is empty")
    if len(command) > MOST_COMMAND_BYTES or not command.isascii() or "\0" in command:
        _text("the command", command, MOST_COMMAND_BYTES)
    if spec.shell is None:
        _split("the command", command)
    if spec.env:
        for name, value in spec.env.items():
            if not _is_variable(name):
                raise UsageError(f"{name[:100]!r} is no name of a variable")
            _text(f"the variable {name}", value, 128 * 1024 - len(name) - 2)
    if spec.requests:
        for name, count in spec.requests.items():
            if not _is_variable(name) or not 0 < count <= 1_000_000:
                raise UsageError(f"a request is NAME=COUNT with a count above 0, not {name}={count}")
    if spec.skip_if_exists and not (spec.output or spec.publish):
        raise UsageError("--skip-if-exists needs an --output or --publish to look at")
    if spec.inputs or spec.resources or spec.output is not None or spec.publish is not None:
        check_uris(spec, schemes)


def _split(what: str, text: str) -> None:
    if not _QUOTING.search(text):
        return
    try:
        shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{what} can't be split into arguments: {error}; name a --shell to have a shell read it") from None


def check_priority(priority: int) -> None:
    """UsageError for a priority that can't be meant."""
    if not -MOST_PRIORITY <= priority <= MOST_PRIORITY:
        raise UsageError(f"a priority lies between -{MOST_PRIORITY} and {MOST_PRIORITY}")


def check_retries(retries: int) -> None:
    """UsageError for a number of retries that can't be meant."""
    if not 0 <= retries <= MOST_RETRIES:
        raise UsageError(f"retries lie between 0 and {MOST_RETRIES}")


MOST_SLOTS = 10_000
"""Of one worker's concurrency, and of its prefetch."""


def check_slots(concurrency: int | None, prefetch: int | None) -> None:
    """UsageError for what no worker can be given."""
    for name, value, least in (("concurrency", concurrency, 1), ("prefetch", prefetch, 0)):
        if value is not None and not least <= value <= MOST_SLOTS:
            raise UsageError(f"{name} lies between {least} and {MOST_SLOTS}")


def check_name(name: str, what: str) -> None:
    """UsageError for a text that can't name a workflow or a step: it would be taken for an id, or break a line or a path."""
    if not _NAME.fullmatch(name) or name != name.strip() or name.isdigit():
        raise UsageError(f"{name[:60]!r} can't name a {what}: 1 to 200 characters, no '/', no blank at the ends, not digits alone")


_task_fields = attrgetter(
    "spec", "name", "key", "labels", "priority", "retries", "depends_on_keys", "after_any_keys", "depends_on_new", "after_any_new"
)  # fmt: skip


def are_plain_tasks(tasks: Sequence[NewTask], specs: int) -> bool:
    """Whether check_task would find nothing in any of them; False proves nothing, as with are_plain."""
    if not tasks:
        return True
    numbers, names, keys, labels, priorities, retries, *waits = zip(*map(_task_fields, tasks), strict=True)
    given = [key for key in keys if key is not None]
    words = [word for own in labels if own for word in own]
    values = [value for own in labels if own for value in own.values()]
    return not (
        not 0 <= min(numbers) <= max(numbers) < specs
        or any(map(any, waits))
        or not all(_are_short_ascii(texts, _MOST_TEXT_BYTES) for texts in (names, given, words, values))
        or not all(given)
        or not all(words)
        or not -MOST_PRIORITY <= min(priorities) <= max(priorities) <= MOST_PRIORITY
        or not 0 <= min(retries) <= max(retries) <= MOST_RETRIES
    )


def check_task(task: NewTask, position: int, specs: int) -> None:
    """UsageError for a task that could not be stored."""
    if not 0 <= task.spec < specs:
        raise UsageError(f"task {position + 1} names spec {task.spec}; there are {specs}")
    together = task.name if task.key is None else task.name + task.key
    if task.labels:
        together += "".join((*task.labels, *task.labels.values()))
    if len(together) > _MOST_TEXT_BYTES or not together.isascii() or "\0" in together:
        _text("the name", task.name, _MOST_TEXT_BYTES)
        _text("the key", task.key or "", _MOST_TEXT_BYTES)
        for text in (*task.labels, *task.labels.values()):
            _text("a label", text, _MOST_TEXT_BYTES)
    if "" in task.labels:
        raise UsageError("a label needs a name")
    if task.key == "":
        raise UsageError("the key is empty")
    check_priority(task.priority)
    check_retries(task.retries)
    for key in task.depends_on_keys + task.after_any_keys:
        _text("the key to wait for", key, _MOST_TEXT_BYTES)
        if key == task.key:
            raise UsageError(f"the task with the key {key!r} would wait for itself")
    if (task.depends_on_new or task.after_any_new) and any(
        not 0 <= other < position for other in (*task.depends_on_new, *task.after_any_new)
    ):
        raise UsageError(f"task {position + 1} of the request waits for one that does not come before it")
