"""Options that several commands share, and the types of their values."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TypeVar

from scitq.errors import UsageError
from scitq.util import units

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def checked(convert: Callable[[str], T]) -> Callable[[str], T]:
    """`convert` as a type for argparse: its UsageError becomes a complaint that names the option."""

    def converted(text: str) -> T:
        try:
            return convert(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return converted


def _at_least(least: int, text: str) -> int:
    if not re.fullmatch(r"-?\d{1,18}", text.strip(), re.ASCII) or int(text) < least:
        raise UsageError(f"{text!r} must be a whole number, {least} or more")
    return int(text)


def _port(text: str) -> int:
    number = _at_least(0, text)
    if number > 65534:
        raise UsageError(f"{text!r} is no port; use 1 to 65534 (the port above it is used too), or 0 for a free one")
    return number


def _between(text: str) -> int:
    if not re.fullmatch(r"-?\d{1,9}", text.strip(), re.ASCII):
        raise UsageError(f"{text!r} must be a whole number")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e12:
        raise UsageError(f"{text!r} must be a number above 0")
    return number


def _gib(text: str) -> float:
    try:
        return _positive(text)
    except UsageError:
        found = units.parse_bytes(text) / 2**30
        if found <= 0:
            raise UsageError(f"{text!r} must be above 0") from None
        return found


def _gb(text: str) -> float:
    try:
        return _positive(text)
    except UsageError:
        return units.parse_bytes(text) / 1e9


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"{text!r} must be of the form name=value")
    return name.strip(), value


def _variable(text: str) -> tuple[str, str]:
    name, value = _pair(text)
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name for a variable: letters, digits and _ only, no digit first")
    return name, value


def _duration(text: str) -> float:
    found = units.parse_duration_s(text)
    if found <= 0:
        raise UsageError(f"{text!r} must be above 0")
    return found


natural = checked(lambda text: _at_least(0, text))
port = checked(_port)
"""A whole number, 0 or more."""
positive = checked(lambda text: _at_least(1, text))
"""A whole number, 1 or more."""
integer = checked(_between)
"""A whole number of either sign."""
number = checked(_positive)
"""A number above 0."""
gib = checked(_gib)
"""GiB from `8` or `8G`, `500MiB`."""
gb = checked(_gb)
"""GB from `100` or `100G`, `1TB`."""
duration = checked(_duration)
"""Seconds from `90s`, `2h`, `1h30m`."""
duration_or_zero = checked(units.parse_duration_s)
"""Seconds, 0 included."""
pair = checked(_pair)
"""`name=value`."""
variable = checked(_variable)
"""`NAME=value` for an environment."""


def add_task_ids(parser: argparse.ArgumentParser, verb: str) -> None:
    """`--id`, required and repeatable: which tasks to `verb`."""
    parser.add_argument(
        "--id",
        "--task-id",
        dest="ids",
        metavar="ID",
        action="append",
        required=True,
        help=f"the tasks to {verb}: 7, or 1,4, or 3-9, or 3-99:2, or last (your newest), or - for the ids on stdin",
    )


def add_worker_ids(parser: argparse.ArgumentParser, verb: str, *, is_required: bool = True) -> None:
    """`--worker-id`, repeatable: which workers to `verb`; the values are lists of ids, to be joined by `worker_ids`."""
    from scitq.commands.selection import parse_ranges

    parser.add_argument(
        "--worker-id",
        "--id",
        dest="worker_ids",
        metavar="ID",
        action="append",
        type=checked(parse_ranges),
        required=is_required,
        help=f"the workers to {verb}: 7, or 1,4, or 3-9" + ("" if is_required else "; all when not given"),
    )


def worker_ids(options: argparse.Namespace) -> list[int]:
    """The ids that `--worker-id` names, without doubles; ranges are small, so each is written out (at most 10,000)."""
    found: dict[int, None] = {}
    for ranges in options.worker_ids or []:
        for first, last, stride in ranges:
            if (last - first) // stride >= 10_000:
                raise UsageError(f"{first}-{last} are too many workers at a time; at most 10,000")
            found |= dict.fromkeys(range(first, last + 1, stride))
    return list(found)
