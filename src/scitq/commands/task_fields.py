"""What can be said of a task at its creation, once: the flags of `task create` and the keys of a line of `--from-file` are made from it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from scitq.commands import arguments, selection
from scitq.errors import UsageError


class Field(NamedTuple):
    """One thing to say. `many`: no, list, or pairs (name=value). `convert`: from text; None keeps the text."""

    name: str
    flags: tuple[str, ...]
    help: str
    metavar: str = "TEXT"
    convert: Callable[[str], Any] | None = None
    many: str = ""
    is_switch: bool = False
    choices: tuple[str, ...] = ()


def _words(text: str) -> list[str]:
    found = [word.strip() for word in text.split(",")]
    if not all(found):
        raise UsageError(f"{text!r} is no list of causes; write oom,exit:75")
    return found


KEY = "key:"
"""Before a key, where otherwise an id stands."""


def _awaited(text: str) -> str:
    if not text.startswith(KEY):
        selection.ranges_of([text])
    elif text == KEY:
        raise UsageError("a key stands after `key:`")
    return text


FIELDS: tuple[Field, ...] = (
    Field("container", ("--container",), "image to run in, or `bare` for none; required", "IMAGE"),
    Field(
        "command",
        ("--command",),
        "command line; split into arguments as a shell would, and interpreted by none unless --shell says so; required",
    ),
    Field("shell", ("--shell",), "interpreter that is given the command: sh, bash, python, 'bash -euo pipefail', …", "SHELL"),
    Field("entrypoint", ("--entrypoint",), "program that replaces the image's ENTRYPOINT", "PROGRAM"),
    Field(
        "resource", ("--resource",), "file, folder/ or pattern brought to the read-only /resource, shared between tasks", "URI", many="list"
    ),
    Field("input", ("--input",), "file, folder/ or pattern brought to /input", "URI", many="list"),
    Field("output", ("--output",), "folder to which /output is sent at the end, success or not", "URI"),
    Field("publish", ("--publish",), "folder to which /output is sent when the task succeeded", "URI"),
    Field("skip_if_exists", ("--skip-if-exists",), "succeed at once when a completed result lies in the output already", is_switch=True),
    Field("env", ("--env",), "environment variable of the task", "NAME=VALUE", arguments.variable, many="pairs"),
    Field("cpus", ("--cpus",), "CPUs reserved on the worker, and enforced by the container", "N", arguments.number),
    Field("mem", ("--mem",), "memory reserved and enforced, in GiB or as 500MiB", "SIZE", arguments.gib),
    Field("gpus", ("--gpus",), "GPUs reserved", "N", arguments.positive),
    Field("disk", ("--disk",), "disk reserved, in GB or as 2TB", "SIZE", arguments.gb),
    Field("request", ("--request",), "other things that workers declare, for example licence=1", "NAME=N", arguments.pair, many="pairs"),
    Field(
        "time_limit", ("--time-limit",), "end the task after so long (F, reason `time limit`; output is sent)", "TIME", arguments.duration
    ),
    Field("time_request", ("--time-request",), "only workers that live so much longer may take it", "TIME", arguments.duration),
    Field("retry", ("--retry",), "let a failed task be tried again, so many times (default: 0)", "N", arguments.natural),
    Field(
        "retry_on",
        ("--retry-on",),
        "retry only after these (comma separated): exit, exit:N, oom, lost, upload, limit, fetch, image, start",
        "CAUSES",
        _words,
    ),
    Field("priority", ("--priority",), "greater goes first (default: 0)", "N", arguments.integer),
    Field("name", ("--name",), "name, for people and for task list --name"),
    Field("label", ("--label",), "label, for task list --label", "NAME=VALUE", arguments.pair, many="pairs"),
    Field("key", ("--key",), "the same key again returns the task that exists, and conflicts (exit 6) when it is another task", "KEY"),
    Field("step_id", ("--step-id", "--step"), "step that the task belongs to; its workers alone take it", "ID", arguments.positive),
    Field(
        "depends_on",
        ("--depends-on", "--dependency"),
        "task that must succeed before: 7, or 1,4, or 3-9, or last, or key:K for your task of that key",
        "ID",
        _awaited,
        many="list",
    ),
    Field("after_any", ("--after-any",), "task that must have ended before, in whatever way; as above", "ID", _awaited, many="list"),
    Field(
        "on_dependency_failure",
        ("--on-dependency-failure",),
        "when a task that this one waits for fails: stay in W, or be cancelled (default: wait)",
        "wait|cancel",
        choices=("wait", "cancel"),
    ),
    Field("hold", ("--hold",), "create it suspended (Z); task resume lets it go (default: no)", is_switch=True),
)
BY_NAME = {field.name: field for field in FIELDS}
_ALIASES = {
    "dependency": "depends_on",
    "step": "step_id",
    "resources": "resource",
    "inputs": "input",
    "labels": "label",
    "requests": "request",
}

Values = dict[str, Any]
"""What was said, by field name; what was not said is absent. Lists and (name, value) pairs for fields that are many."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of all fields; each is None when it was not given."""
    for field in FIELDS:
        common: dict[str, Any] = {"dest": field.name, "help": field.help, "default": None}
        if field.is_switch:
            parser.add_argument(*field.flags, action="store_true", **common)
            continue
        if field.convert is not None:
            common["type"] = arguments.checked(field.convert)
        if field.choices:
            common["choices"] = field.choices
        parser.add_argument(*field.flags, action="append" if field.many else "store", metavar=field.metavar, **common)


def from_flags(options: argparse.Namespace) -> Values:
    """What the flags say."""
    return {field.name: getattr(options, field.name) for field in FIELDS if getattr(options, field.name) is not None}


def _convert(field: Field, value: object) -> Any:  # noqa: ANN401 - whatever the field holds
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UsageError(f"{field.name} must be a text or a number, not {_written(value)}")
    if field.convert is None:
        if not isinstance(value, str):
            raise UsageError(f"{field.name} must be a text, not {_written(value)}")
        if field.choices and value not in field.choices:
            raise UsageError(f"{field.name} must be {' or '.join(field.choices)}, not {value!r}")
        return value
    text = f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)
    try:
        return field.convert(text)
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"{field.name}: {error}") from None


def _plain(key: str, name: str, value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise UsageError(f"{key}: {name} must be a text or a number, not {_written(value)}")
    return value


def _written(value: object) -> str:
    """A value as JSON has it, cut short."""
    return msgspec.json.encode(value).decode()[:60]


def from_json(line: object) -> Values:
    """What one JSON object says; UsageError that names the key for what can't be meant. Keys may be written with - or _."""
    if not isinstance(line, dict):
        raise UsageError(f"a task is a JSON object, not {_written(line)}")
    found: Values = {}
    for key, value in line.items():
        name = key.replace("-", "_")
        field = BY_NAME.get(_ALIASES.get(name, name))
        if field is None:
            raise UsageError(f"there is no key {key!r}; there are {', '.join(BY_NAME)}")
        if field.name in found:
            raise UsageError(f"{key} is given twice")
        if value is None:
            continue
        if field.is_switch:
            if not isinstance(value, bool):
                raise UsageError(f"{key} must be true or false, not {_written(value)}")
            if value:
                found[field.name] = True
        elif field.many == "pairs" and isinstance(value, dict):
            found[field.name] = [_convert(field, f"{name}={_plain(key, name, inner)}") for name, inner in value.items()]
        elif field.many or (field.name == "retry_on" and isinstance(value, list)):
            items = value if isinstance(value, list) else [value]
            converted = [_convert(field, item) for item in items]
            found[field.name] = [word for words in converted for word in words] if field.name == "retry_on" else converted
        else:
            found[field.name] = _convert(field, value)
    return found
