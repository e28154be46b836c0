"""The items that a workflow goes over, and the units of a step: one for each of its tasks."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from scitq.errors import UsageError
from scitq.model.template.problems import problem
from scitq.model.template.schema import Dimension
from scitq.model.template.text import Scope, Text, Value, Words
from scitq.model.uri import name_matches

MOST_ITEMS = 1_000_000


class Sources(Protocol):
    """The world outside the file, as far as items come from it."""

    def read_text(self, path: str) -> str:
        """The text of a file of the user's; raises UsageError."""

    def list_uri(self, uri: str) -> list[str]:
        """The URIs of all files that a folder (recursively) or a pattern describes; raises StorageError or UsageError."""


@dataclass(frozen=True, slots=True)
class Item:
    """One value of a dimension: its name, its columns, its files, and the further coordinates of a composite key."""

    name: str
    columns: dict[str, Value] = field(default_factory=dict)
    files: dict[str, tuple[str, ...]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unit:
    """The place of one task: its label, what tells it from others, the values it knows, the files it may name."""

    label: str
    coordinates: dict[str, str]
    values: dict[str, Value]
    files: dict[tuple[str, str], tuple[str, ...]]


def items_of(dimension: Dimension, scope: Scope, sources: Sources) -> list[Item]:
    """The items of one dimension, in order; TemplateError when there are none or two have one name."""
    found = _SOURCES[dimension.source](dimension, scope, sources)
    if "match" in dimension.texts:
        pattern = dimension.texts["match"].evaluate(scope)
        found = [item for item in found if name_matches(pattern, item.name)]
    if not found:
        raise problem(dimension.line, f"there is no {dimension.name} to go over: the list is empty")
    if len(found) > MOST_ITEMS:
        raise problem(dimension.line, f"{dimension.name} has more than {MOST_ITEMS} items")
    seen: set[str] = set()
    for item in found:
        if not item.name.strip() or len(item.name) > 200 or not item.name.isprintable():
            raise problem(
                dimension.line, f"{item.name[:60]!r} can't name an item of {dimension.name}: printable, not blank, at most 200 characters"
            )
        if item.name in seen:
            raise problem(dimension.line, f"two items of {dimension.name} are named {item.name!r}")
        seen.add(item.name)
    return found


def _list(dimension: Dimension, scope: Scope, _: Sources) -> list[Item]:
    assert dimension.values is not None
    names: list[str] = []
    for words in dimension.values:
        text = words.evaluate(scope)
        if isinstance(words, Text) and words.is_plain:
            names.append(text)
        else:
            names += [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]
    return [Item(name) for name in names]


def _whole(dimension: Dimension, key: str, default: int, scope: Scope) -> int:
    words = dimension.texts.get(key)
    if words is None:
        return default
    text = words.evaluate(scope)
    if not re.fullmatch(r"\s*[+-]?\d{1,18}\s*", text):
        raise problem(words.line, f"{key} must be a whole number, not {text[:60]!r}")
    return int(text)


def _range(dimension: Dimension, scope: Scope, _: Sources) -> list[Item]:
    start, end, step = (_whole(dimension, key, default, scope) for key, default in (("start", 1), ("end", 1), ("step", 1)))
    if step == 0:
        raise problem(dimension.line, "step may not be 0")
    numbers = range(start, end + (1 if step > 0 else -1), step)
    return [Item(str(number)) for number in numbers[: MOST_ITEMS + 1]]


def _content(dimension: Dimension, scope: Scope, sources: Sources) -> tuple[str, str]:
    """The text that holds the items, and the file's name when it came from one."""
    if "content" in dimension.texts:
        return dimension.texts["content"].evaluate(scope), ""
    words = dimension.texts["file"]
    path = words.evaluate(scope)
    try:
        return sources.read_text(path), path
    except UsageError as error:
        raise problem(words.line, str(error)) from None


def _lines(dimension: Dimension, scope: Scope, sources: Sources) -> list[Item]:
    text, _ = _content(dimension, scope, sources)
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    group = dimension.texts.get("item")
    if group is None:
        return [Item(line) for line in lines]
    tag = dimension.texts["tag"].evaluate(scope) if "tag" in dimension.texts else "folder"
    if tag not in ("folder", "name"):
        raise problem(dimension.line, f"tag: is folder or name, not {tag!r}")
    return [Item(_folder(line) if tag == "folder" else _stem(line), files={group.evaluate(scope): (line,)}) for line in lines]


def _path(uri: str) -> list[str]:
    return [part for part in uri.partition("://")[2].split("|")[0].split("/") if part]


def _folder(uri: str) -> str:
    """The last folder before the file name or the pattern."""
    parts = [part for part in (_path(uri) if uri.endswith("/") else _path(uri)[:-1]) if "*" not in part]
    return parts[-1] if parts else ""


def _stem(uri: str) -> str:
    return (_path(uri) or [""])[-1].partition(".")[0]


def _tsv(dimension: Dimension, scope: Scope, sources: Sources) -> list[Item]:
    text, path = _content(dimension, scope, sources)
    header = text.lstrip("\n").partition("\n")[0]
    separator = (
        dimension.texts["sep"].evaluate(scope) if "sep" in dimension.texts else "," if path.endswith(".csv") or "\t" not in header else "\t"
    )
    if len(separator) != 1:
        raise problem(dimension.line, f"sep: is one character, not {separator!r}")
    rows = [row for row in csv.reader(io.StringIO(text.lstrip("\n")), delimiter=separator) if any(cell.strip() for cell in row)]
    if not rows:
        return []
    columns = [re.sub(r"\W", "_", cell.strip()) for cell in rows[0]]
    if len(set(columns)) != len(columns):
        raise problem(dimension.line, f"two columns of the table have one name: {', '.join(columns)}")
    keys = [part.strip() for part in dimension.texts["key"].evaluate(scope).split(",")] if "key" in dimension.texts else columns[:1]
    missing = [key for key in keys if key not in columns]
    if missing:
        raise problem(dimension.line, f"the table has no column {missing[0]!r}; it has {', '.join(columns)}")
    found = []
    for row in rows[1:]:
        cells: dict[str, Value] = dict(zip(columns, [*(cell.strip() for cell in row), *[""] * len(columns)], strict=False))
        name = ".".join(str(cells[key]) for key in keys)
        found.append(Item(name, cells, keys={key: str(cells[key]) for key in keys} if len(keys) > 1 else {}))
    return found


def _uri(dimension: Dimension, scope: Scope, sources: Sources) -> list[Item]:
    words = dimension.texts["uri"]
    uri = words.evaluate(scope)
    if "://" not in uri:
        raise problem(words.line, f"{uri!r} is no URI; write storage://bucket/folder/")
    if "*" not in uri and not uri.endswith("/"):
        uri += "/"
    try:
        files = sorted(sources.list_uri(uri))
    except UsageError as error:
        raise problem(words.line, str(error)) from None
    patterns = {name: text.evaluate(scope) for name, text in dimension.groups.items()} or {"files": "*"}
    naming = _naming(dimension, scope, uri)
    found: dict[str, dict[str, list[str]]] = {}
    for file in files:
        base = _path(file)[-1] if _path(file) else ""
        name = naming(file)
        for group, pattern in patterns.items() if name else ():
            if name_matches(pattern, base):
                groups = found.setdefault(name, {"files": []})
                groups.setdefault(group, []).append(file)
                if file not in groups["files"]:
                    groups["files"].append(file)
    return [Item(name, files={group: tuple(uris) for group, uris in groups.items()}) for name, groups in sorted(found.items())]


def _naming(dimension: Dimension, scope: Scope, uri: str) -> Callable[[str], str]:
    """How a file's URI names the item that it belongs to; an empty name leaves the file out."""
    if "pattern" in dimension.texts:
        words = dimension.texts["pattern"]
        try:
            pattern = re.compile(words.evaluate(scope))
        except re.error as error:
            raise problem(words.line, f"pattern: is no regular expression: {error}") from None
        if pattern.groups != 1:
            raise problem(words.line, "pattern: needs exactly one group in parentheses, which names the item: (.+)_R[12].fastq.gz")

        def by_pattern(file: str) -> str:
            match = pattern.fullmatch((_path(file) or [""])[-1])
            return match[1] if match else ""

        return by_pattern
    by = dimension.texts["group_by"].evaluate(scope) if "group_by" in dimension.texts else "file" if "*" in uri else "folder"
    if by not in ("folder", "file"):
        raise problem(dimension.line, f"group_by: is folder or file, not {by!r}; for anything else there is pattern:")
    return _folder if by == "folder" else _stem


_SOURCES: dict[str, Callable[[Dimension, Scope, Sources], list[Item]]] = {
    "list": _list,
    "range": _range,
    "lines": _lines,
    "tsv": _tsv,
    "uri": _uri,
}


def _single(dimension: str, item: Item) -> Unit:
    values: dict[str, Value] = {dimension: item.name, dimension.upper(): item.name}
    for key, value in item.keys.items():
        values[key] = values[key.upper()] = value
    values |= {f"{dimension}.{column}": value for column, value in item.columns.items()}
    files = {(dimension, group): uris for group, uris in item.files.items()}
    return Unit(item.name, {dimension: item.name, **item.keys}, values, files)


def _joined(left: Unit, right: Unit) -> Unit:
    return Unit(
        ".".join(part for part in (left.label, right.label) if part),
        {**left.coordinates, **right.coordinates},
        {**left.values, **right.values},
        {**left.files, **right.files},
    )


EMPTY = Unit("", {}, {}, {})


def product(units: Iterable[Unit], dimension: str, items: Sequence[Item]) -> Iterator[Unit]:
    """Each unit with each item."""
    singles = [_single(dimension, item) for item in items]
    for unit, single in itertools.product(units, singles):
        yield _joined(unit, single)


def all_names(dimension: str, names: Iterable[str]) -> dict[str, Value]:
    """`{SAMPLES}` and `{SAMPLE_COUNT}` for a dimension named sample."""
    distinct = list(dict.fromkeys(names))
    return {f"{dimension.upper()}S": ",".join(distinct), f"{dimension.upper()}_COUNT": len(distinct)}


def grouped(units: Sequence[Unit], by: Sequence[str], dimensions: Sequence[str]) -> list[Unit]:
    """One unit for each value of the coordinates `by` (of all together when there are none), with the values that its members share."""
    members: dict[tuple[str, ...], list[Unit]] = {}
    for unit in units:
        members.setdefault(tuple(unit.coordinates[name] for name in by), []).append(unit)
    return [_merged(key, by, group, dimensions) for key, group in members.items()]


def _merged(key: tuple[str, ...], by: Sequence[str], group: list[Unit], dimensions: Sequence[str]) -> Unit:
    first = group[0]
    values = {name: value for name, value in first.values.items() if by and all(unit.values.get(name) == value for unit in group)}
    for name in dimensions:
        if name not in by:
            values |= all_names(name, (unit.coordinates[name] for unit in group))
    files: dict[tuple[str, str], dict[str, None]] = {}
    for unit in group:
        for place, uris in unit.files.items():
            files.setdefault(place, {}).update(dict.fromkeys(uris))
    return Unit(".".join(key), dict(zip(by, key, strict=True)), values, {place: tuple(uris) for place, uris in files.items()})


def words_of(dimension: Dimension) -> Iterator[Words]:
    """Every text of a dimension."""
    yield from dimension.values or ()
    yield from dimension.texts.values()
    yield from dimension.groups.values()
