"""Where tasks come from besides flags: JSON lines, lines of a list, scripts with #SCITQ lines."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from scitq.commands import task_build
from scitq.commands.task_fields import Values, from_json
from scitq.errors import UsageError
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


def _shown(file: str) -> str:
    return "stdin" if file == "-" else file


def read_text(file: str) -> str:
    """The content of `file` byte for byte, as text; UsageError when it is not UTF-8."""
    try:
        return read_bytes(file).decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{_shown(file)}: no valid UTF-8 at byte {error.start}") from None


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
    value = msgspec.json.decode(line)
    if line.count(b":") > _keys(value):
        json.loads(line, object_pairs_hook=_refuse_doubles)
    return value


def json_lines(file: str, common: Values, last_id: Callable[[], int | None]) -> tuple[list[TaskSpec], list[NewTask]]:
    """All tasks of a file of JSON lines, each with `common` where it says nothing itself; blank lines are skipped.

    Returns the different specs and the tasks, whose `spec` is an index into them. All lines are checked before
    anything is created: UsageError with the line numbers of what is wrong (the first 20).
    """
    specs: dict[bytes, int] = {}
    found: list[TaskSpec] = []
    tasks: list[NewTask] = []
    problems: list[str] = []
    encode = msgspec.msgpack.Encoder().encode
    for number, line in enumerate(read_bytes(file).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            values = common | from_json(_decoded(line))
            spec = task_build.spec_of(values)
            position = specs.setdefault(encode(spec), len(found))
            if position == len(found):
                found.append(spec)
            tasks.append(msgspec.structs.replace(task_build.task_of(values, last_id), spec=position))
        except (UsageError, msgspec.DecodeError) as error:
            problems.append(f"{_shown(file)}, line {number}: {error}")
            if len(problems) == MOST_ERRORS:
                problems.append("… and no further line was looked at")
                break
    if problems:
        raise UsageError("nothing was created:\n" + "\n".join(problems))
    if not tasks:
        raise UsageError(f"{_shown(file)} holds no task")
    return found, tasks


def items(file: str) -> list[str]:
    """The lines of a list, for --each-line; blank ones are skipped."""
    found = [line.removesuffix("\r") for line in read_text(file).split("\n")]
    found = [line for line in found if line.strip()]
    if not found:
        raise UsageError(f"{_shown(file)} holds no line")
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
