"""Filters on flavors, as people write them: `cpu>=8:mem>10:provider~%azure%` (contract FLV-3 to FLV-7)."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable

import msgspec

from scitq.errors import UsageError
from scitq.model.flavor import Flavor, by_price

NUMBERS: dict[str, Callable[[Flavor], float | None]] = {
    "cpu": lambda flavor: flavor.cpus,
    "mem": lambda flavor: flavor.mem_gib,
    "disk": lambda flavor: flavor.disk_gb,
    "gpumem": lambda flavor: flavor.gpumem_gib,
    "gpus": lambda flavor: flavor.gpus,
    "eviction": lambda flavor: flavor.eviction_percent,
    "cost": lambda flavor: flavor.cost,
}
TEXTS: dict[str, Callable[[Flavor], str]] = {
    "provider": lambda flavor: flavor.provider,
    "region": lambda flavor: flavor.region,
    "gpu": lambda flavor: flavor.gpu,
    "flavor": lambda flavor: flavor.name,
}
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "==": operator.eq,
}
_PIECE = re.compile(r"\s*([A-Za-z_]+)\s*(>=|<=|==|>|<|=|~)\s*(.*?)\s*", re.DOTALL)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)")
_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
DEFAULT_EVICTION_PERCENT = 5.0


class Condition(msgspec.Struct, frozen=True):
    """One condition: a column, an operator, and a number or a text."""

    column: str
    sign: str
    number: float | None = None
    text: str = ""

    def passes(self, flavor: Flavor) -> bool:
        """Whether `flavor` fulfils it; an unknown price fulfils no condition on the price."""
        if self.number is not None:
            value = NUMBERS[self.column](flavor)
            return value is not None and _COMPARE[self.sign](value, self.number)
        value_text = TEXTS[self.column](flavor)
        return like(value_text, self.text) if self.sign == "~" else _lower(value_text) == _lower(self.text)


def _lower(text: str) -> str:
    return text.translate(_LOWER)


def like(text: str, pattern: str) -> bool:
    """Whether the whole of `text` fits `pattern`, where `%` stands for anything; ASCII letters in either case, all else literal.

    Linear in both, so that no pattern can hang the server.
    """
    text, pieces = _lower(text), _lower(pattern).split("%")
    if len(pieces) == 1:
        return text == pieces[0]
    first, last = pieces[0], pieces[-1]
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    position, end = len(first), len(text) - len(last)
    for piece in pieces[1:-1]:
        found = text.find(piece, position, end)
        if found < 0:
            return False
        position = found + len(piece)
    return True


def _parse_piece(piece: str) -> Condition:
    match = _PIECE.fullmatch(piece)
    if not match:
        raise UsageError(f"bad filter: {piece.strip()!r} is no condition; write for instance cpu>=8 or provider~%azure%")
    column, sign, value = match[1].lower(), match[2], match[3]
    if column in NUMBERS:
        if sign == "~":
            raise UsageError(f"bad filter: in {piece.strip()!r}, {column} is a number; compare it with > >= < <= =")
        if not _NUMBER.fullmatch(value):
            raise UsageError(f"bad filter: in {piece.strip()!r}, {value!r} is no number")
        return Condition(column, sign, float(value))
    if column in TEXTS:
        if sign not in {"~", "=", "=="}:
            raise UsageError(f"bad filter: in {piece.strip()!r}, {column} is a text; compare it with ~ (and % for anything) or =")
        if not value:
            raise UsageError(f"bad filter: {piece.strip()!r} has no value")
        return Condition(column, sign, None, value)
    raise UsageError(f"bad filter: in {piece.strip()!r}, {match[1]!r} is not known; known are {', '.join([*NUMBERS, *TEXTS])}")


def parse(text: str) -> tuple[Condition, ...]:
    """The conditions in `text`, with `eviction<=5` added unless it speaks of eviction; UsageError names the bad piece."""
    conditions = [_parse_piece(piece) for piece in text.split(":")] if text.strip() else []
    if not any(condition.column == "eviction" for condition in conditions):
        conditions.append(Condition("eviction", "<=", DEFAULT_EVICTION_PERCENT))
    return tuple(conditions)


def passes(conditions: Iterable[Condition], flavor: Flavor) -> bool:
    """Whether `flavor` fulfils all."""
    return all(condition.passes(flavor) for condition in conditions)


def select(flavors: Iterable[Flavor], conditions: tuple[Condition, ...]) -> list[Flavor]:
    """Those that pass, the cheapest first."""
    return sorted((flavor for flavor in flavors if passes(conditions, flavor)), key=by_price)
