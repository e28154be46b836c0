"""Reading one group of keys of a workflow file: unknown keys, wrong kinds and missing ones become problems with their lines."""

from __future__ import annotations

import difflib
import re

from scitq.model.template.condition import Choice
from scitq.model.template.problems import Problems
from scitq.model.template.text import Text, Words
from scitq.model.template.tree import Mapping, Node, Scalar, Sequence

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_LONGEST_NAME = 200


def near(word: str, known: list[str]) -> str:
    """`; did you mean …?` when some known word is close, else nothing."""
    found = difflib.get_close_matches(word, known, 1)
    return f"; did you mean {found[0]}?" if found else ""


def article(node: Node) -> str:
    """What kind of thing a node is, for a message."""
    return "a list" if isinstance(node, Sequence) else "a group of keys" if isinstance(node, Mapping) else f"{node.text!r}"


class Fields:
    """The keys of one mapping. Each key has one meaning; `aliases` are other spellings of it."""

    def __init__(self, problems: Problems, node: Mapping, what: str, known: tuple[str, ...], aliases: dict[str, str] | None = None) -> None:
        self.problems = problems
        self.what = what
        self.line = node.line
        self._nodes: dict[str, Node] = {}
        self._lines: dict[str, int] = {}
        self.others: dict[str, Node] = {}
        aliases = aliases or {}
        for key, value in node.entries.items():
            name = aliases.get(key, key)
            line = node.key_lines[key]
            if name not in known:
                if "*" in known:
                    self.others[key] = value
                    self._lines[key] = line
                else:
                    problems.add(line, f"{what} has no key {key!r}{near(key, [*known, *aliases])}")
            elif name in self._nodes:
                problems.add(line, f"{key!r} says the same as another key above it")
            else:
                self._nodes[name], self._lines[name] = value, line

    def has(self, key: str) -> bool:
        """Whether the key stands there with a value."""
        node = self._nodes.get(key)
        return node is not None and not (isinstance(node, Scalar) and node.is_null)

    def line_of(self, key: str) -> int:
        """The line of a key, or of the group when the key is not there."""
        return self._lines.get(key, self.line)

    def node(self, key: str) -> Node | None:
        """What stands at the key, None when nothing does."""
        return self._nodes[key] if self.has(key) else None

    def words(self, key: str) -> Words | None:
        """The text, or the choice of texts, at the key."""
        node = self.node(key)
        return None if node is None else words(self.problems, node, key)

    def plain(self, key: str, default: str = "") -> str:
        """A text in which names in braces make no sense."""
        node = self.node(key)
        if node is None:
            return default
        if not isinstance(node, Scalar):
            self.problems.add(node.line, f"{key} takes a text, not {article(node)}")
            return default
        return node.text

    def name(self, key: str = "name") -> str:
        """A name made of letters, digits, _ and -; its absence is a problem."""
        if not self.has(key):
            self.problems.add(self.line, f"{self.what} needs a {key}")
            return ""
        text = self.plain(key)
        if not NAME.fullmatch(text) or len(text) > _LONGEST_NAME:
            self.problems.add(
                self.line_of(key),
                f"the name {text[:60]!r} must begin with a letter and hold letters, digits, _ and - only, at most {_LONGEST_NAME}",
            )
        return text

    def flag(self, key: str, default: bool = False) -> bool:
        """Yes or no, as YAML writes them."""
        node = self.node(key)
        if node is None:
            return default
        if not (isinstance(node, Scalar) and node.kind == "bool"):
            self.problems.add(node.line, f"{key} is true or false, not {article(node)}")
            return default
        return node.text.lower() in ("true", "yes", "on")

    def number(self, key: str) -> float | None:
        """A number that is known at once."""
        node = self.node(key)
        if node is None:
            return None
        try:
            if isinstance(node, Scalar):
                return float(node.text)
        except ValueError:
            pass
        self.problems.add(node.line, f"{key} is a number, not {article(node)}")
        return None

    def items(self, key: str) -> tuple[Node, ...]:
        """The entries of a list; a single value is a list of one."""
        node = self.node(key)
        if node is None:
            return ()
        return node.items if isinstance(node, Sequence) else (node,)

    def word_list(self, key: str) -> tuple[Words, ...]:
        """A list of texts; a single one is a list of one."""
        return tuple(found for node in self.items(key) if (found := words(self.problems, node, key)) is not None)

    def word_group(self, key: str) -> dict[str, Words]:
        """A group of names with texts."""
        node = self.node(key)
        if node is None:
            return {}
        if not isinstance(node, Mapping):
            self.problems.add(node.line, f"{key} takes a group of keys, each with a value, not {article(node)}")
            return {}
        return {name: found for name, inner in node.entries.items() if (found := words(self.problems, inner, name)) is not None}

    def mapping(self, key: str) -> Mapping | None:
        """The group of keys at the key."""
        node = self.node(key)
        if node is None or isinstance(node, Mapping):
            return node
        self.problems.add(node.line, f"{key} takes a group of keys, not {article(node)}")
        return None


def words(problems: Problems, node: Node, key: str) -> Words | None:
    """The text, or the `cond:` choice of texts, that a node writes."""
    if isinstance(node, Scalar):
        return Text("" if node.is_null else node.text, node.line, node.is_block)
    if isinstance(node, Mapping) and "cond" in node.entries:
        return _choice(problems, node, key)
    problems.add(node.line, f"{key} takes a text, not {article(node)}")
    return None


def _choice(problems: Problems, node: Mapping, key: str) -> Choice | None:
    condition = node.entries["cond"]
    if not isinstance(condition, Scalar):
        problems.add(condition.line, "cond: takes a condition")
        return None
    branches: dict[str, Words] = {}
    default = None
    for name, inner in node.entries.items():
        if name == "cond":
            continue
        found = words(problems, inner, key)
        if found is not None and name == "default":
            default = found
        elif found is not None:
            branches[name.lower() if name.lower() in ("true", "false") else name] = found
    if not branches:
        problems.add(node.line, "cond: needs branches below it, named by the values they are for")
    return Choice(Text(condition.text, condition.line), branches, default, node.line)
