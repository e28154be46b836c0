"""Where tasks come from besides flags: JSON lines, lines of a list, scripts with #SCITQ lines."""

from __future__ import annotations

import codecs
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from scitq.commands import task_build
from scitq.commands.task_fields import Values, from_json
from scitq.errors import ConflictError, UsageError
from scitq.model.task import NewTask, TaskSpec

MOST_ERRORS = 20


def read_bytes(file: str) -> bytes:
    """The content of `file`, `-` being stdin."""
    if file == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}") from None


def shown(file: str) -> str:
    """How a message names the file."""
    return "stdin" if file == "-" else file


def read_text(file: str) -> str:
    """The content of `file` byte for byte, as text; UsageError when it is not UTF-8."""
    try:
        return read_bytes(file).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{shown(file)}: no valid UTF-8 at byte {error.start}") from None


def _keys(value: object) -> int:
    return sum(1 + _keys(inner) for inner in value.values()) if isinstance(value, dict) else 0


def _refuse_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise UsageError(f"{next(name for name in names if names.count(name) > 1)} is given twice")
    return found


def _decoded(line: bytes) -> Any:  # noqa: ANN401 - whatever the line holds
    """The JSON value in `line`; UsageError for a key that stands twice in one object, which decoders pass over in silence."""
    try:
        value = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"no valid JSON: {error}") from None
    if line.count(b":") > _keys(value):
        json.loads(line, object_pairs_hook=_refuse_doubles)
    return value


class Lines(NamedTuple):
    """What a file of JSON lines asks for: the different specs, the different tasks (their `spec` is an index into the specs).

    numbers: the line of each task. positions: for each line that holds one, which task it is; lines of one key and one
    content are the same task.
    """

    file: str
    specs: list[TaskSpec]
    tasks: list[NewTask]
    numbers: list[int]
    positions: list[int]

    def place(self, position: int) -> str:
        """Where the task at a position is written."""
        return f"{shown(self.file)}, line {self.numbers[position]}"


class _Reader:
    """Takes line after line; every problem is kept, so that all can be told."""

    def __init__(self, file: str, common: Values, last_id: Callable[[], int | None]) -> None:
        self.lines = Lines(file, [], [], [], [])
        self.problems: list[str] = []
        self.is_conflict = True
        self._common = common
        self._last_id = last_id
        self._specs: dict[bytes, int] = {}
        self._keys: dict[str, int] = {}
        self._awaited: list[tuple[int, str]] = []
        self._encode = msgspec.msgpack.Encoder().encode

    def read(self, number: int, line: bytes) -> None:
        """One line."""
        try:
            self._take(number, line)
        except ConflictError as error:
            self._tell(number, error.message)
        except UsageError as error:
            self.is_conflict = False
            self._tell(number, error.message)

    def _tell(self, number: int, text: str) -> None:
        self.problems.append(f"{shown(self.lines.file)}, line {number}: {text}")

    def _take(self, number: int, line: bytes) -> None:
        values = self._common | from_json(_decoded(line))
        spec = task_build.spec_of(values)
        task = task_build.task_of(values, self._last_id)
        place = self._specs.setdefault(self._encode(spec), len(self.lines.specs))
        if place == len(self.lines.specs):
            self.lines.specs.append(spec)
        task = msgspec.structs.replace(task, spec=place)
        position = len(self.lines.tasks)
        if task.key is not None:
            known = self._keys.setdefault(task.key, position)
            if known != position:
                if self.lines.tasks[known] != task:
                    raise ConflictError(f"the key {task.key!r} stands on line {self.lines.numbers[known]} too, with other content")
                self.lines.positions.append(known)
                return
        self._awaited += [(position, key) for key in (*task.depends_on_keys, *task.after_any_keys)]
        self.lines.tasks.append(task)
        self.lines.numbers.append(number)
        self.lines.positions.append(position)

    def check_order(self) -> None:
        """A key that a line waits for stands before it, when the file has it; so there are no cycles."""
        for position, key in self._awaited:
            if self._keys.get(key, -1) >= position:
                self.is_conflict = False
                after = self.lines.numbers[self._keys[key]]
                self._tell(
                    self.lines.numbers[position], f"it waits for the key {key!r}, which stands on line {after}; write that line first"
                )


def json_lines(file: str, common: Values, last_id: Callable[[], int | None]) -> Lines:
    """All tasks of a file of JSON lines, each with `common` where it says nothing itself; blank lines are skipped.

    All lines are checked before anything is created: UsageError with the line numbers of what is wrong (the first 20),
    ConflictError when that is nothing but one key with two contents.
    """
    reader = _Reader(file, common, last_id)
    for number, line in enumerate(read_bytes(file).removeprefix(codecs.BOM_UTF8).split(b"\n"), 1):
        if line.strip():
            reader.read(number, line)
        if len(reader.problems) == MOST_ERRORS:
            reader.problems.append("… and no further line was looked at")
            break
    else:
        reader.check_order()
    if reader.problems:
        kind = ConflictError if reader.is_conflict else UsageError
        raise kind("nothing was created:\n" + "\n".join(reader.problems))
    if not reader.lines.tasks:
        raise UsageError(f"{shown(file)} holds no task")
    return reader.lines


def items(file: str) -> list[str]:
    """The lines of a list, for --each-line; blank ones are skipped."""
    found = [line.removesuffix("\r") for line in read_text(file).split("\n")]
    found = [line for line in found if line.strip()]
    if not found:
        raise UsageError(f"{shown(file)} holds no line")
    return found


def script_words(text: str) -> Iterator[str]:
    """The flags of the `#SCITQ` lines, which must stand before the first line that is neither blank nor a comment, as with #SBATCH."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("#SCITQ"):
            try:
                yield from shlex.split(line[len("#SCITQ") :], comments=True)
            except ValueError as error:
                raise UsageError(f"line {number} of the script: {error}") from None
        elif line.strip() and not line.startswith("#"):
            return


def script_shell(text: str) -> str:
    """The interpreter that the script's first line names; sh when it names none."""
    first = text.partition("\n")[0]
    if not first.startswith("#!"):
        return "sh"
    words = first[2:].split()
    if words and words[0].rsplit("/", 1)[-1] == "env":
        words = [word for word in words[1:] if word != "-S"]
    return " ".join(words) or "sh"
