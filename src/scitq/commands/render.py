"""What goes to stdout: tables for people, JSON and ids for programs (contract CLI-7, CLI-8)."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

_NEUTRAL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {9: "\\t", 10: "\\n", 13: "\\r"}
_NEUTRAL |= dict.fromkeys((0x202A, 0x202B, 0x202C, 0x202D, 0x202E, 0x2066, 0x2067, 0x2068, 0x2069), "?")
"""Control characters, and those that turn the direction of writing round."""


class Column(NamedTuple):
    """A column of a table: its name (also for --columns), how to get a cell's text from a row, whether it holds numbers,
    and whether a terminal's edge may cut it when it is the last."""

    name: str
    cell: Callable[[Any], str]
    is_number: bool = False
    may_be_cut: bool = False


def neutral(text: str) -> str:
    """`text` with its control characters written out, so that it can't drive the terminal and stays on one line."""
    return text.translate(_NEUTRAL)


def neutral_lines(text: str) -> str:
    """The same for a text of several lines, which stay."""
    return "\n".join(neutral(line) for line in text.split("\n"))


def plain(value: object) -> Any:  # noqa: ANN401 - JSON data
    """Structs as dictionaries with every field, also those at their default; sequences as lists."""
    if isinstance(value, msgspec.Struct):
        return {field: plain(getattr(value, field)) for field in value.__struct_fields__}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def to_json(value: object) -> str:
    """`value` as JSON on one line."""
    return msgspec.json.encode(plain(value)).decode()


def local_time(ms: int | None) -> str:
    """A moment in the reader's own time; empty for None and 0."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ms / 1000)) if ms else ""


def optional(value: object) -> str:
    """A value's text; empty for None."""
    return "" if value is None else str(value)


class Output:
    """stdout in one of three forms. `is_json` beats `is_quiet`."""

    def __init__(self, *, is_json: bool = False, is_quiet: bool = False) -> None:
        self.is_json = is_json
        self.is_quiet = is_quiet
        self.is_terminal = sys.stdout is not None and sys.stdout.isatty()
        self.has_color = self.is_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def text(self, text: str) -> None:
        """One line (or several) as it is."""
        sys.stdout.write(f"{text}\n")

    def json(self, value: object) -> None:
        """One value as JSON; a list has one item a line."""
        found = plain(value)
        if isinstance(found, list):
            lines = ",\n".join(f" {to_json(item)}" for item in found)
            self.text(f"[\n{lines}\n]" if found else "[]")
        else:
            self.text(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())

    def ids(self, ids: Iterable[object]) -> None:
        """One id a line."""
        for one in ids:
            self.text(str(one))

    def rows(self, rows: Sequence[Any], columns: Sequence[Column], *, key: str = "id") -> None:
        """A list: JSON objects, ids alone (the field `key`), or a table with the columns given."""
        if self.is_json:
            self.json(list(rows))
        elif self.is_quiet:
            self.ids(getattr(row, key) for row in rows)
        else:
            self.table([[column.cell(row) for column in columns] for row in rows], columns)

    def table(self, cells: Sequence[Sequence[str]], columns: Sequence[Column]) -> None:
        """Lines under a line of headings; in a pipe never cut (contract LST-11). In a terminal's window that is too narrow a last
        column is cut if it may be, else wrapped; and where the columns before it do not fit either, each row is a block of lines."""
        shown = [[neutral(cell) for cell in row] for row in cells]
        widths = [max([len(column.name), *(len(row[i]) for row in shown)]) for i, column in enumerate(columns)]
        width = os.get_terminal_size(sys.stdout.fileno()).columns if self.is_terminal else 0
        is_cut = width > 0 and columns[-1].may_be_cut
        if width and not is_cut and shown and sum(widths[:-1]) + 2 * len(widths[:-1]) >= width:
            for number, row in enumerate(cells):
                if number:
                    self.text("")
                self.fields(zip((column.name for column in columns), row, strict=True))
            return

        def line(row: Sequence[str]) -> str:
            parts = [cell.rjust(w) if column.is_number else cell.ljust(w) for cell, w, column in zip(row, widths, columns, strict=True)]
            whole = "  ".join(parts).rstrip()
            return whole[: width - 1] + "…" if is_cut and len(whole) > width else whole

        heading = line([column.name.upper() for column in columns])
        self.text(f"\x1b[1m{heading}\x1b[0m" if self.has_color else heading)
        for row in shown:
            self.text(line(row))

    def fields(self, pairs: Iterable[tuple[str, str]]) -> None:
        """`name: value` lines, aligned; empty values are left out."""
        kept = [(name, neutral(value)) for name, value in pairs if value]
        width = max((len(name) for name, _ in kept), default=0) + 2
        for name, value in kept:
            self.text(f"{name + ':':<{width}}{value}")

    def acted(self, ids: Sequence[int]) -> None:
        """The ids of what was acted upon: JSON objects with `id`, or one id a line."""
        if self.is_json:
            self.json([{"id": one} for one in ids])
        else:
            self.ids(ids)
