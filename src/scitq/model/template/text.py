"""Texts with `{names}` in them, and the values that the names have for one task (docs/workflows.md, "Names in braces")."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Callable, Iterator
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass
from typing import Protocol

from scitq.model.template.problems import problem

Value = str | int | float | bool | None

_INNER = r"[A-Za-z_]\w*(?:\.\w+)*(?:[:|][^{}\n]*)?"
_EXPRESSION = re.compile(rf"\{{\{{(?P<escaped>{_INNER})\}}\}}|(?<!\$)\{{(?P<inner>{_INNER})\}}")
_WHOLE = re.compile(rf"\{{({_INNER})\}}")
_PARTS = re.compile(r"([\w.]+)(?::([^|]*))?((?:\|[^|]*)*)")
_FALSY = frozenset({"", "false", "no", "none", "off", "0"})


def show(value: Value) -> str:
    """A value as it is written into a text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)


def is_truthy(value: Value) -> bool:
    """False for nothing, zero, and the words false, no, none, off; true for all else."""
    return value.strip().lower() not in _FALSY if isinstance(value, str) else bool(value)


def _stem(value: str) -> str:
    return posixpath.basename(value.rstrip("/")).partition(".")[0]


_FILTERS: dict[str, Callable[[str], str]] = {
    "name": _stem,
    "basename": lambda value: posixpath.basename(value.rstrip("/")),
    "dir": lambda value: posixpath.dirname(value.rstrip("/")),
    "int": lambda value: str(int(float(value))),
    "lower": str.lower,
    "upper": str.upper,
    "strip": str.strip,
    "quote": shlex.quote,
    "json": lambda value: json.dumps(value, ensure_ascii=False),
    "lines": lambda value: "\n".join(value.split(",")),
    "words": lambda value: " ".join(value.split(",")),
}
FILTER_NAMES = (*_FILTERS, "format=")


def _format(pattern: str, value: str) -> str:
    """`value` as `%05d`, `%.2f`, `%s` and the like would print it."""
    if not re.fullmatch(r"[^%]*%[-+0 #]*\d{0,3}(?:\.\d{1,2})?[dfgesxX][^%]*", pattern):
        raise ValueError(f"format= takes one pattern like %05d, %.2f or %s, not {pattern!r}")
    number: str | float | int = value
    if not re.search(r"s[^%]*$", pattern):
        number = int(value) if re.search(r"[dxX][^%]*$", pattern) else float(value)
    return pattern % number


class Words(Protocol):
    """A text of the file, or a choice between texts."""

    @property
    def line(self) -> int:
        """Where it stands."""

    @property
    def is_plain(self) -> bool:
        """Whether no name is used, so that the value is known at once."""

    def expressions(self) -> Iterator[tuple[str, int]]:
        """Each name used, and its line; TemplateError for what is not understood."""

    def evaluate(self, scope: Scope) -> str:
        """The text with its names replaced; TemplateError for one without a value."""

    def value(self, scope: Scope) -> Value:
        """The value itself, not as text, when the text is one name in braces; else the text."""


class Scope:
    """The names that one task knows. Variables are texts, worked out when they are asked for."""

    def __init__(self, values: MappingOf[str, Value], variables: MappingOf[str, Words] | None = None) -> None:
        self._values = values
        self._variables = variables or {}
        self._open: list[str] = []

    def has(self, name: str) -> bool:
        """Whether the name means something here."""
        return name in self._values or name in self._variables

    def get(self, name: str, line: int) -> Value:
        """The value of `name`; TemplateError, with `line`, when there is none of this name here."""
        if name in self._values:
            return self._values[name]
        variable = self._variables.get(name)
        if variable is None:
            raise problem(line, f"{{{name}}} has no value in this place")
        if name in self._open:
            raise problem(variable.line, f"the variable {name} is made from itself")
        self._open.append(name)
        try:
            return variable.evaluate(self)
        finally:
            self._open.pop()

    def with_values(self, more: MappingOf[str, Value]) -> Scope:
        """The same names and some more, which win."""
        return Scope({**self._values, **more}, self._variables)

    def with_variables(self, more: MappingOf[str, Words]) -> Scope:
        """The same names and some more variables, which win."""
        return Scope(self._values, {**self._variables, **more})


@dataclass(frozen=True, slots=True)
class _Expression:
    name: str
    default: str | None
    filters: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, inner: str, line: int) -> _Expression:
        match = _PARTS.fullmatch(inner)
        if match is None:
            raise problem(line, f"{{{inner}}} is not understood")
        filters = []
        for word in match[3].split("|")[1:]:
            name, _, argument = word.strip().partition("=")
            if name not in _FILTERS and name != "format":
                raise problem(line, f"{{{inner}}}: there is no filter {name!r}; known are {', '.join(FILTER_NAMES)}")
            filters.append((name, argument))
        return cls(match[1], match[2], tuple(filters))

    def value(self, scope: Scope, line: int) -> Value:
        if self.default is not None and not scope.has(self.name):
            value: Value = self.default
        else:
            value = scope.get(self.name, line)
        if value is None or (value == "" and self.default):
            value = self.default
        for name, argument in self.filters:
            try:
                value = _format(argument, show(value)) if name == "format" else _FILTERS[name](show(value))
            except (ValueError, OverflowError) as error:
                raise problem(line, f"{{{self.name}|{name}}}: {error}") from None
        return value


@dataclass(frozen=True, slots=True)
class Text:
    """A text of the file. `is_block`: it begins on the line after `line`."""

    raw: str
    line: int
    is_block: bool = False

    def _line_at(self, position: int) -> int:
        return self.line + 1 + self.raw.count("\n", 0, position) if self.is_block else self.line

    def expressions(self) -> Iterator[tuple[str, int]]:
        """Each name used, and its line; TemplateError for an unknown filter."""
        for match in _EXPRESSION.finditer(self.raw):
            if match["inner"]:
                line = self._line_at(match.start())
                yield _Expression.parse(match["inner"], line).name, line

    @property
    def is_plain(self) -> bool:
        """Whether no name is used, so that the value is known at once."""
        return next(self.expressions(), None) is None

    def evaluate(self, scope: Scope) -> str:
        """The text with its names replaced; TemplateError for one without a value."""

        def replace(match: re.Match[str]) -> str:
            if match["escaped"]:
                return f"{{{match['escaped']}}}"
            line = self._line_at(match.start())
            expression = _Expression.parse(match["inner"], line)
            value = expression.value(scope, line)
            if value is None:
                raise problem(line, f"{{{expression.name}}} has no value; give one, or write a default: {{{expression.name}:DEFAULT}}")
            return show(value)

        return _EXPRESSION.sub(replace, self.raw)

    def value(self, scope: Scope) -> Value:
        """The value itself, not as text, when the text is one name in braces; else the text."""
        whole = _WHOLE.fullmatch(self.raw.strip())
        if whole:
            return _Expression.parse(whole[1], self.line).value(scope, self.line)
        return self.evaluate(scope)
