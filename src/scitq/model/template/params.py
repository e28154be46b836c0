"""Parameters: their declaration, and the values given for them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping as MappingOf

from scitq.errors import UsageError
from scitq.model.template.fields import NAME, Fields, near
from scitq.model.template.problems import Problems
from scitq.model.template.schema import PARAM_TYPES, Param
from scitq.model.template.text import Value, show
from scitq.model.template.tree import Mapping, Scalar

_KEYS = ("type", "default", "required", "choices", "help", "min", "max")
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_MOST_DIGITS = 100
"""Of a whole number, blanks and signs included."""


def read(problems: Problems, node: Mapping) -> dict[str, Param]:
    """The declared parameters, in order."""
    found: dict[str, Param] = {}
    for name, inner in node.entries.items():
        line = node.key_lines[name]
        if not NAME.fullmatch(name) or "-" in name:
            problems.add(line, f"the parameter's name {name!r} must begin with a letter and hold letters, digits and _ only")
        if isinstance(inner, Mapping):
            found[name] = _read_one(problems, name, inner, line)
        elif isinstance(inner, Scalar) and inner.kind in ("int", "float", "bool"):
            kind = {"int": "integer", "float": "float", "bool": "boolean"}[inner.kind]
            found[name] = _with_default(problems, Param(name, kind, line), inner)
        elif isinstance(inner, Scalar):
            found[name] = Param(name, "string", line, default=None if inner.is_null else inner.text, is_required=inner.is_null)
        else:
            problems.add(line, f"the parameter {name} takes keys like type, default and help, or a default value alone")
    return found


def _read_one(problems: Problems, name: str, node: Mapping, line: int) -> Param:
    fields = Fields(problems, node, f"the parameter {name}", _KEYS)
    written = fields.plain("type", "string")
    kind = PARAM_TYPES.get(written, "string")
    if written not in PARAM_TYPES:
        known = ", ".join(PARAM_TYPES)
        problems.add(fields.line_of("type"), f"{written!r} is no type of parameter; known are {known}{near(written, list(PARAM_TYPES))}")
    choices = tuple(each.text for each in fields.items("choices") if isinstance(each, Scalar))
    if kind == "enum" and not choices:
        problems.add(line, f"the parameter {name} of type enum needs choices")
    param = Param(
        name,
        kind,
        line,
        is_required=fields.flag("required"),
        choices=_checked_choices(problems, fields, Param(name, kind, line), choices),
        help=fields.plain("help"),
        least=fields.number("min"),
        most=fields.number("max"),
    )
    _check_bounds(problems, fields, param)
    default = fields.node("default")
    if default is None:
        return param
    if param.is_required:
        problems.add(fields.line_of("default"), f"the parameter {name} is required, so a default has no use")
    return _with_default(problems, param, default if isinstance(default, Scalar) else Scalar("", default.line, "list"))


def _checked_choices(problems: Problems, fields: Fields, param: Param, choices: tuple[str, ...]) -> tuple[str, ...]:
    """The choices, each as its value is written: 010 and 10 are one integer."""
    try:
        return tuple(show(convert(param, text)) for text in choices)
    except UsageError as error:
        problems.add(fields.line_of("choices"), f"the choices of {param.name}: {error}")
        return ()


def _check_bounds(problems: Problems, fields: Fields, param: Param) -> None:
    given = [key for key in ("min", "max") if fields.has(key)]
    if given and param.kind not in ("integer", "float"):
        problems.add(fields.line_of(given[0]), f"{given[0]} is for numbers, and the parameter {param.name} is of type {param.kind}")
    elif param.least is not None and param.most is not None and param.least > param.most:
        problems.add(fields.line_of("min"), f"min is greater than max, so the parameter {param.name} can have no value")


def _with_default(problems: Problems, param: Param, node: Scalar) -> Param:
    try:
        if node.kind == "list":
            raise UsageError("a list can't be a default; write the values with commas between them")
        value = convert(param, node.text)
    except UsageError as error:
        problems.add(node.line, f"the default of {param.name}: {error}")
        return param
    return Param(param.name, param.kind, param.line, value, False, param.choices, param.help, param.least, param.most)


def convert(param: Param, text: str) -> Value:
    """The value that `text` writes for `param`; UsageError when it is none of its type."""
    value = _typed(param, text)
    if param.choices and show(value) not in param.choices:
        raise UsageError(f"{text!r} is none of {', '.join(param.choices)}")
    return value


def _typed(param: Param, text: str) -> Value:
    match param.kind:
        case "integer":
            if not re.fullmatch(r"\s*[+-]?\d+(_\d+)*\s*", text) or len(text) > _MOST_DIGITS:
                raise UsageError(f"{text[:_MOST_DIGITS]!r} is no whole number")
            return _within(param, int(text))
        case "float":
            try:
                number = float(text)
            except ValueError:
                raise UsageError(f"{text!r} is no number") from None
            if not math.isfinite(number):
                raise UsageError(f"{text!r} is no finite number")
            return _within(param, number)
        case "boolean":
            if text.strip().lower() not in _TRUE | _FALSE:
                raise UsageError(f"{text!r} is neither true nor false")
            return text.strip().lower() in _TRUE
        case "provider_region":
            if not re.fullmatch(r"[\w-]+\.[\w-]+(:[\w-]+)?", text):
                raise UsageError(f"{text!r} is no provider and region; write name.config or name.config:region")
    return text


def _within(param: Param, number: int | float) -> int | float:
    if (param.least is not None and number < param.least) or (param.most is not None and number > param.most):
        least = "" if param.least is None else f" from {param.least:g}"
        most = "" if param.most is None else f" up to {param.most:g}"
        raise UsageError(f"{number} is not{least}{most}")
    return number


def resolve(declared: MappingOf[str, Param], given: MappingOf[str, str]) -> dict[str, Value]:
    """Each parameter's value; UsageError that names all that is unknown, missing or of a wrong type."""
    wrong = [f"there is no parameter {name!r}{near(name, list(declared))}" for name in given if name not in declared]
    values: dict[str, Value] = {}
    for name, param in declared.items():
        values[name] = param.default
        if name in given:
            try:
                values[name] = convert(param, given[name])
            except UsageError as error:
                wrong.append(f"--param {name}: {error}")
        elif param.is_required:
            wrong.append(
                f"the parameter {name} is required: --param {name}={param.kind.upper()}{f'  ({param.help})' if param.help else ''}"
            )
    if wrong:
        raise UsageError("\n".join(wrong))
    return values
