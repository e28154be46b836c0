"""What a new task must be, checked before anything is stored."""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Collection

from scitq.errors import UsageError
from scitq.model.task import BARE, MOST_PRIORITY, MOST_RETRIES, NewTask, TaskSpec
from scitq.model.uri_rules import check_uris

_IMAGE = re.compile(
    r"(?:(?=[^/]*[.:]|localhost/)[A-Za-z0-9.\-]+(?::\d+)?/)?"
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_QUOTING = re.compile(r"""['"\\]""")
"""Without any of these, splitting can't fail."""
_NAME = re.compile(r"[^\x00-\x1f\x7f/]{1,200}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RETRY_ON = re.compile(r"exit(?::(?:\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5]))?|oom|lost|upload|limit|fetch|image|start")
MOST_COMMAND_BYTES = 16 * 1024 * 1024


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
    return name == BARE or (len(name) <= 512 and _IMAGE.fullmatch(name) is not None)


def check_spec(spec: TaskSpec, schemes: Collection[str]) -> None:
    """UsageError for anything in a spec that could never run; `schemes` are the known storages."""
    if not spec.container.strip():
        raise UsageError("the container is empty; name an image, or 'bare' for none")
    if not _is_image(spec.container):
        raise UsageError(f"{spec.container[:100]!r} is no name of a container image")
    if not spec.command.strip():
        raise UsageError("the command is empty")
    _text("the command", spec.command, MOST_COMMAND_BYTES)
    for what, value in (("the shell", spec.shell), ("the entrypoint", spec.entrypoint)):
        if value is not None:
            if not value.strip():
                raise UsageError(f"{what} is empty")
            _text(what, value, 4096)
            _split(what, value)
    if spec.shell is None:
        _split("the command", spec.command)
    for name, value in spec.env.items():
        if not _VARIABLE.fullmatch(name):
            raise UsageError(f"{name[:100]!r} is no name of a variable")
        _text(f"the variable {name}", value, 128 * 1024 - len(name) - 2)
    _check_numbers(spec)
    for word in spec.retry_on:
        if not _RETRY_ON.fullmatch(word):
            raise UsageError(f"can't retry on {word!r}; known are exit, exit:N, oom, lost, upload, limit, fetch, image, start")
    if spec.skip_if_exists and not (spec.output or spec.publish):
        raise UsageError("--skip-if-exists needs an --output or --publish to look at")
    check_uris(spec, schemes)


def _split(what: str, text: str) -> None:
    if not _QUOTING.search(text):
        return
    try:
        shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{what} can't be split into arguments: {error}; name a --shell to have a shell read it") from None


def _check_numbers(spec: TaskSpec) -> None:
    if spec.cpus is spec.mem_gib is spec.gpus is spec.disk_gb is spec.time_limit_s is spec.time_request_s is None and not spec.requests:
        return
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
    for name, count in spec.requests.items():
        if not _VARIABLE.fullmatch(name) or not 0 < count <= 1_000_000:
            raise UsageError(f"a request is NAME=COUNT with a count above 0, not {name}={count}")


def check_priority(priority: int) -> None:
    """UsageError for a priority that can't be meant."""
    if not -MOST_PRIORITY <= priority <= MOST_PRIORITY:
        raise UsageError(f"a priority lies between -{MOST_PRIORITY} and {MOST_PRIORITY}")


def check_retries(retries: int) -> None:
    """UsageError for a number of retries that can't be meant."""
    if not 0 <= retries <= MOST_RETRIES:
        raise UsageError(f"retries lie between 0 and {MOST_RETRIES}")


def check_name(name: str, what: str) -> None:
    """UsageError for a text that can't name a workflow or a step: it would be taken for an id, or break a line or a path."""
    if not _NAME.fullmatch(name) or name != name.strip() or name.isdigit():
        raise UsageError(f"{name[:60]!r} can't name a {what}: 1 to 200 characters, no '/', no blank at the ends, not digits alone")


def check_task(task: NewTask, position: int, specs: int) -> None:
    """UsageError for a task that could not be stored."""
    if not 0 <= task.spec < specs:
        raise UsageError(f"task {position + 1} names spec {task.spec}; there are {specs}")
    if task.name:
        _text("the name", task.name, 1024)
    if task.labels:
        for text in (*task.labels, *task.labels.values()):
            _text("a label", text, 1024)
        if "" in task.labels:
            raise UsageError("a label needs a name")
    if task.key is not None:
        _text("the key", task.key, 1024)
        if not task.key:
            raise UsageError("the key is empty")
    check_priority(task.priority)
    check_retries(task.retries)
    for key in (*task.depends_on_keys, *task.after_any_keys):
        _text("the key to wait for", key, 1024)
        if key == task.key:
            raise UsageError(f"the task with the key {key!r} would wait for itself")
    if (task.depends_on_new or task.after_any_new) and any(
        not 0 <= other < position for other in (*task.depends_on_new, *task.after_any_new)
    ):
        raise UsageError(f"task {position + 1} of the request waits for one that does not come before it")
