"""Reading `iterate`, `product` and `each`: what a workflow or a step goes over."""

from __future__ import annotations

from scitq.model.template.fields import NAME, Fields, article, words
from scitq.model.template.problems import Problems
from scitq.model.template.schema import Dimension
from scitq.model.template.text import Text, Words
from scitq.model.template.tree import Mapping, Node, Scalar, Sequence

SOURCES: dict[str, tuple[str, ...]] = {
    "list": ("values",),
    "range": ("start", "end", "step"),
    "lines": ("file", "content", "item", "tag"),
    "tsv": ("file", "content", "key", "sep"),
    "uri": ("uri", "group_by", "pattern"),
}
"""The sources and their own keys; `name`, `source`, `match` and `product` fit all."""
_TELLING = {"values": "list", "end": "range", "uri": "uri", "key": "tsv", "file": "lines", "content": "lines"}
_RESERVED = frozenset({"params", "item", "step", "workflow", "true", "false", "and", "or", "not", "in"})
_TAKEN = frozenset(
    {"path", "home", "user", "shell", "lang", "input", "output", "resource", "temp", "cpu", "mem", "threads", "tmpdir", "ifs"}
)
"""Names whose upper-case form means something else in a task's environment."""


def read_dimensions(problems: Problems, node: Node | None) -> tuple[Dimension, ...]:
    """The dimensions of `iterate`: one group of keys with nested `product`, or a list of groups; the first varies slowest."""
    if node is None:
        return ()
    found: list[Dimension] = []
    for entry in node.items if isinstance(node, Sequence) else (node,):
        current: Node | None = entry
        while current is not None:
            if not isinstance(current, Mapping):
                problems.add(current.line, f"iterate takes a group of keys (name, values, …), not {article(current)}")
                break
            found.append(read_dimension(problems, current, None))
            current = current.entries.get("product")
    _check_names(problems, found)
    return tuple(found)


def read_each(problems: Problems, node: Node | None) -> tuple[Dimension, ...]:
    """The dimensions of a step's `each`: names, each with a list of values or with a source."""
    if node is None:
        return ()
    if not isinstance(node, Mapping):
        problems.add(node.line, f"each takes names with lists, like {{chrom: [chr1, chr2]}}, not {article(node)}")
        return ()
    found = []
    for name, inner in node.entries.items():
        line = node.key_lines[name]
        if isinstance(inner, Mapping) and "cond" not in inner.entries:
            found.append(read_dimension(problems, inner, name))
        else:
            found.append(Dimension(name, "list", line, _values(problems, inner, name)))
    _check_names(problems, found)
    return tuple(found)


def read_dimension(problems: Problems, node: Mapping, name: str | None) -> Dimension:
    """One dimension; `name` is given where the file has it as a key."""
    fields = Fields(problems, node, "iterate" if name is None else f"each {name}", ("name", "source", "match", "product", "*"))
    source = fields.plain("source") or _guess(node)
    known = SOURCES.get(source)
    if known is None:
        line = fields.line_of("source")
        problems.add(line, f"the source of items must be one of {', '.join(SOURCES)}" + (f", not {source!r}" if source else ""))
        known = tuple(fields.others)
    texts: dict[str, Words] = {}
    groups: dict[str, Words] = {}
    values = None
    match = fields.words("match")
    if match is not None:
        texts["match"] = match
    for key, inner in fields.others.items():
        if key == "values" and key in known:
            values = _values(problems, inner, key)
        elif key == "key" and isinstance(inner, Sequence):
            texts[key] = Text(",".join(each.text for each in inner.items if isinstance(each, Scalar)), inner.line)
        elif key in known or source == "uri":
            found = words(problems, inner, key)
            if found is not None:
                (texts if key in known else groups)[key] = found
        else:
            problems.add(fields.line_of(key), f"items from {source or 'nowhere'} have no key {key!r}; known are {', '.join(known)}")
    dimension = Dimension(name or fields.name(), source, node.line, values, texts, groups)
    _check_complete(problems, dimension)
    return dimension


def _guess(node: Mapping) -> str:
    return next((source for key, source in _TELLING.items() if key in node.entries), "")


def _values(problems: Problems, node: Node, key: str) -> tuple[Words, ...]:
    nodes = node.items if isinstance(node, Sequence) else (node,)
    return tuple(found for each in nodes if (found := words(problems, each, key)) is not None)


_NEEDS = {"list": ("values",), "range": ("end",), "lines": ("file", "content"), "tsv": ("file", "content"), "uri": ("uri",)}


def _check_complete(problems: Problems, dimension: Dimension) -> None:
    needed = _NEEDS.get(dimension.source, ())
    given = [key for key in needed if key in dimension.texts or (key == "values" and dimension.values is not None)]
    if needed and len(given) != 1:
        problems.add(dimension.line, f"items from {dimension.source} need {' or '.join(needed)}" + (", not both" if given else ""))


def _check_names(problems: Problems, dimensions: list[Dimension]) -> None:
    seen: set[str] = set()
    for dimension in dimensions:
        if dimension.name.lower() in _TAKEN:
            problems.add(dimension.line, f"{dimension.name!r} would replace ${dimension.name.upper()} in the tasks; choose another name")
        if dimension.name in _RESERVED or not NAME.fullmatch(dimension.name or "x") or "-" in dimension.name:
            problems.add(dimension.line, f"{dimension.name!r} can't be the name of what a workflow goes over")
        if dimension.name.lower() in seen:
            problems.add(dimension.line, f"two lists are named {dimension.name!r}")
        seen.add(dimension.name.lower())
