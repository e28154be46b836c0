"""Conditions (`when:`, `cond:`): comparisons, and, or, not, in; read with Python's grammar, but nothing is ever run."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from scitq.model.template.problems import problem
from scitq.model.template.text import Scope, Text, Value, Words, is_truthy, show

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_WHOLE = re.compile(r"\{[^{}]*\}")


def _parse(text: Text) -> ast.expr | None:
    """The tree of a condition; None when the text is one name in braces, or an empty text."""
    raw = text.raw.strip()
    if not raw or _WHOLE.fullmatch(raw):
        return None
    if len(raw) > 2000:
        raise problem(text.line, "the condition is too long")
    try:
        return ast.parse(raw, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise problem(
            text.line, f"the condition {raw!r} is not understood; write for example: params.depth > 10 and sample != 'control'"
        ) from None


def _dotted(node: ast.expr, line: int) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, line)}.{node.attr}"
    raise problem(line, "a condition compares names, numbers and words; functions and arithmetic are not possible")


def _walk(node: ast.expr, line: int) -> Iterator[str]:
    """Every name used; TemplateError for anything that is no condition."""
    match node:
        case ast.BoolOp(values=parts) | ast.Tuple(elts=parts) | ast.List(elts=parts):
            for part in parts:
                yield from _walk(part, line)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=inner):
            yield from _walk(inner, line)
        case ast.Compare(left=left, comparators=others):
            for part in (left, *others):
                yield from _walk(part, line)
        case ast.Constant(value=str() | int() | float() | bool() | None):
            return
        case _:
            name = _dotted(node, line)
            if name not in ("true", "false"):
                yield name


def names(text: Text) -> Iterator[tuple[str, int]]:
    """Each name that the condition uses, and its line; TemplateError when it is not understood."""
    tree = _parse(text)
    if tree is None:
        yield from text.expressions()
    else:
        for name in _walk(tree, text.line):
            yield name, text.line


def evaluate(text: Text, scope: Scope) -> Value:
    """The value of the condition: of its one name, or what the comparison gives."""
    tree = _parse(text)
    if tree is None:
        return text.value(scope)
    found = _value(tree, scope, text.line)
    return found if not isinstance(found, tuple) else bool(found)


def holds(text: Text, scope: Scope) -> bool:
    """Whether the condition holds."""
    return is_truthy(evaluate(text, scope))


def _value(node: ast.expr, scope: Scope, line: int) -> Value | tuple[Value, ...]:
    match node:
        case ast.Constant(value=str() | int() | float() | bool() | None as value):
            return value
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return tuple(found for part in parts if not isinstance(found := _value(part, scope, line), tuple))
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return not _truth(inner, scope, line)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
            return -number
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_truth(part, scope, line) for part in parts)
        case ast.BoolOp(values=parts):
            return any(_truth(part, scope, line) for part in parts)
        case ast.Compare():
            return _compare(node, scope, line)
        case _:
            name = _dotted(node, line)
            return name == "true" if name in ("true", "false") else scope.get(name, line)


def _truth(node: ast.expr, scope: Scope, line: int) -> bool:
    value = _value(node, scope, line)
    return bool(value) if isinstance(value, tuple) else is_truthy(value)


def _compare(node: ast.Compare, scope: Scope, line: int) -> bool:
    left = _value(node.left, scope, line)
    for op, other in zip(node.ops, node.comparators, strict=True):
        right = _value(other, scope, line)
        if isinstance(op, ast.In | ast.NotIn):
            found = any(_same(left, each) for each in right) if isinstance(right, tuple) else str(left) in str(right)
            if found != isinstance(op, ast.In):
                return False
        elif type(op) not in _COMPARE or isinstance(left, tuple) or isinstance(right, tuple):
            raise problem(line, "a condition compares with == != < <= > >= in")
        else:
            first, second = _alike(left, right)
            try:
                if not _COMPARE[type(op)](first, second):
                    return False
            except TypeError:
                raise problem(line, f"{left!r} and {right!r} can't be compared") from None
        left = right
    return True


def _same(left: Value | tuple[Value, ...], right: Value) -> bool:
    if isinstance(left, tuple):
        return False
    first, second = _alike(left, right)
    return bool(first == second)


def _alike(left: Value, right: Value) -> tuple[Any, Any]:
    """Both as numbers where one is a number and the other is a text that writes one; both as words for a truth."""
    if isinstance(left, bool) or isinstance(right, bool):
        return is_truthy(left), is_truthy(right)
    if isinstance(left, str) and isinstance(right, int | float):
        return _number(left), right
    if isinstance(right, str) and isinstance(left, int | float):
        return left, _number(right)
    return left, right


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


@dataclass(frozen=True, slots=True)
class Choice:
    """`cond:` with its branches: which text holds depends on a value."""

    condition: Text
    branches: dict[str, Words]
    default: Words | None
    line: int

    def expressions(self) -> Iterator[tuple[str, int]]:
        """Each name used in any branch, and its line."""
        yield from names(self.condition)
        for branch in (*self.branches.values(), *([self.default] if self.default is not None else [])):
            yield from branch.expressions()

    @property
    def is_plain(self) -> bool:
        """Never: it depends on something."""
        return False

    def evaluate(self, scope: Scope) -> str:
        """The text of the branch that holds; TemplateError when none does."""
        value = evaluate(self.condition, scope)
        words = [show(value)]
        if not isinstance(value, str) or words[0].lower() in ("true", "false"):
            words.append("true" if is_truthy(value) else "false")
        chosen = next((self.branches[word] for word in words if word in self.branches), None)
        if chosen is None:
            fallback = "true" if is_truthy(value) else "false"
            chosen = self.branches.get(fallback, self.default) if set(self.branches) <= {"true", "false"} else self.default
        if chosen is None:
            raise problem(self.line, f"cond: there is no branch for {words[0]!r} and no default")
        return chosen.evaluate(scope)

    def value(self, scope: Scope) -> Value:
        """The text of the branch that holds."""
        return self.evaluate(scope)
