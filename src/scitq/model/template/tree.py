"""YAML as a tree whose every node knows its line."""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from scitq.model.template.problems import problem

MOST_NODES = 200_000
"""Aliases can make a small file huge; this bounds it."""
_TAG = "tag:yaml.org,2002:"
_SCALARS = {f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "timestamp")}


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value, its text as written. `is_block`: a literal block, whose text begins on the line after `line`."""

    text: str
    line: int
    kind: str = "str"
    """The YAML type: str, int, float, bool, null or timestamp."""
    is_block: bool = False

    @property
    def is_null(self) -> bool:
        """Whether nothing is written."""
        return self.kind == "null"


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys and values, in order, and the line of each key."""

    entries: dict[str, Node]
    key_lines: dict[str, int]
    line: int


Node = Scalar | Sequence | Mapping


def parse(text: str) -> Node:
    """The tree of a YAML document; TemplateError with the line for what is no YAML, and for keys given twice."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        told = error.problem or error.context or "not understood"
        raise problem(mark.line + 1 if mark else 0, f"no valid YAML: {told}") from None
    except yaml.YAMLError as error:
        raise problem(0, f"no valid YAML: {error}") from None
    except RecursionError:
        raise problem(0, "nested too deep") from None
    if root is None:
        raise problem(1, "the file is empty")
    return _Builder().build(root, ())


class _Builder:
    def __init__(self) -> None:
        self._made = 0

    def build(self, node: yaml.Node, above: tuple[yaml.Node, ...]) -> Node:
        line = node.start_mark.line + 1
        self._made += 1
        if self._made > MOST_NODES:
            raise problem(line, f"more than {MOST_NODES} values, aliases counted each time they are used")
        if any(node is upper for upper in above) or len(above) > 50:
            raise problem(line, "an alias holds itself, or values are nested too deep")
        below = (*above, node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, line)
        if isinstance(node, yaml.SequenceNode):
            return Sequence(tuple(self.build(child, below) for child in node.value), line)
        assert isinstance(node, yaml.MappingNode)
        return self._mapping(node, line, below)

    def _scalar(self, node: yaml.ScalarNode, line: int) -> Scalar:
        if node.tag not in _SCALARS:
            raise problem(line, f"the YAML tag {node.tag.replace(_TAG, '!!')} is not understood here")
        return Scalar(node.value, line, node.tag.removeprefix(_TAG), node.style == "|")

    def _mapping(self, node: yaml.MappingNode, line: int, below: tuple[yaml.Node, ...]) -> Mapping:
        entries: dict[str, Node] = {}
        key_lines: dict[str, int] = {}
        merged: dict[str, tuple[Node, int]] = {}
        for key_node, value_node in node.value:
            key_line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise problem(key_line, "a key must be a single word")
            value = self.build(value_node, below)
            if key_node.tag == f"{_TAG}merge":
                self._merge(value, merged, key_line)
                continue
            key = key_node.value
            if key in entries:
                raise problem(key_line, f"the key {key!r} is given twice (first on line {key_lines[key]})")
            entries[key], key_lines[key] = value, key_line
        for key, (value, key_line) in merged.items():
            if key not in entries:
                entries[key], key_lines[key] = value, key_line
        return Mapping(entries, key_lines, line)

    def _merge(self, value: Node, merged: dict[str, tuple[Node, int]], line: int) -> None:
        sources = value.items if isinstance(value, Sequence) else (value,)
        for source in sources:
            if not isinstance(source, Mapping):
                raise problem(line, "<< takes an alias of a group of keys")
            for key, inner in source.entries.items():
                merged.setdefault(key, (inner, source.key_lines[key]))
