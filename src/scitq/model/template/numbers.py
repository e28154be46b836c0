"""Texts of a workflow file that must be numbers, durations, sizes, or yes and no, once their names are replaced."""

from __future__ import annotations

import re
from collections.abc import Mapping as MappingOf

from scitq.errors import UsageError
from scitq.model.template.problems import problem
from scitq.model.template.text import Scope, Words, is_truthy
from scitq.util.units import parse_bytes, parse_duration_s

_YES = frozenset({"true", "yes", "on", "1"})
Texts = MappingOf[str, Words]
_SIGNS = re.compile(r"\s*(>=|<=|==|=|>|<)?\s*(\d+(?:\.\d+)?)\s*")


def text(texts: Texts, key: str, scope: Scope) -> str | None:
    """The text at a key, None when there is none or it comes to nothing."""
    words = texts.get(key)
    return (words.evaluate(scope).strip() or None) if words is not None else None


def number(texts: Texts, key: str, scope: Scope) -> float | None:
    """A number greater than 0."""
    found = text(texts, key, scope)
    if found is None:
        return None
    if not re.fullmatch(r"\d+(\.\d+)?", found) or float(found) == 0:
        raise problem(texts[key].line, f"{key} must be a number greater than 0, not {found!r}")
    return float(found)


def whole(texts: Texts, key: str, scope: Scope, least: int = 0, most: int = 1_000_000) -> int | None:
    """A whole number from `least` to `most`."""
    found = text(texts, key, scope)
    if found is None:
        return None
    if not re.fullmatch(r"[+-]?\d{1,18}", found) or not least <= int(found) <= most:
        raise problem(texts[key].line, f"{key} must be a whole number from {least} to {most}, not {found[:60]!r}")
    return int(found)


def gibibytes(texts: Texts, key: str, scope: Scope) -> float | None:
    """Memory in GiB: a bare number is GiB, `16G` and `512MiB` are read as sizes."""
    return _size(texts, key, scope, 1 << 30)


def gigabytes(texts: Texts, key: str, scope: Scope) -> float | None:
    """Disk in GB: a bare number is GB."""
    return _size(texts, key, scope, 10**9)


def _size(texts: Texts, key: str, scope: Scope, unit: int) -> float | None:
    found = text(texts, key, scope)
    if found is None or re.fullmatch(r"\d+(\.\d+)?", found):
        return number(texts, key, scope)
    try:
        return parse_bytes(found) / unit
    except UsageError as error:
        raise problem(texts[key].line, f"{key}: {error}") from None


def seconds(texts: Texts, key: str, scope: Scope) -> float | None:
    """A duration: 90s, 15m, 2h, 1h30m."""
    found = text(texts, key, scope)
    if found is None:
        return None
    try:
        return parse_duration_s(found)
    except UsageError as error:
        raise problem(texts[key].line, f"{key}: {error}") from None


def flag(texts: Texts, key: str, scope: Scope) -> bool:
    """Yes or no; nothing means no."""
    words = texts.get(key)
    if words is None:
        return False
    value = words.value(scope)
    if isinstance(value, str) and is_truthy(value) and value.strip().lower() not in _YES:
        raise problem(words.line, f"{key} is true or false, not {value[:60]!r}")
    return is_truthy(value)


def percent_or_whole(texts: Texts, key: str, scope: Scope) -> tuple[int | None, int | None]:
    """A count, or a percentage like `50%`."""
    found = text(texts, key, scope)
    if found is None:
        return None, None
    match = re.fullmatch(r"(\d{1,4})\s*%", found)
    if match:
        return None, int(match[1])
    return whole(texts, key, scope, most=10_000), None


def comparison(texts: Texts, key: str, scope: Scope, default_sign: str) -> str | None:
    """A condition of a flavor filter on a number: `>= 8`, or `8` with the default sign."""
    found = text(texts, key, scope)
    if found is None:
        return None
    match = _SIGNS.fullmatch(found)
    if match is None:
        raise problem(texts[key].line, f"{key} is compared with a number, like '>= 8', not {found!r}")
    return f"{key}{match[1] or default_sign}{match[2]}"
