"""From a task to what is executed: arguments, script files and environment (contract CRE-4 to CRE-10; docs/agent.md, "Commands")."""

from __future__ import annotations

import os
import pwd
import shlex
from contextlib import suppress
from pathlib import Path

from scitq.agent.executors.base import FOLDER_OF_SCRIPT, Program
from scitq.agent.folders import TaskFolders
from scitq.errors import UsageError
from scitq.model.task import BARE, TaskSpec
from scitq.protocol.messages.agent import Assignment, Hardware

SHELLS_WITH_C = frozenset({"sh", "bash", "dash", "zsh", "ash", "ksh"})
MOST_INLINE_BYTES = 100 * 1024
"""Longer commands go by file: the kernel takes at most 128 KiB in one argument."""


def program_of(spec: TaskSpec, folders: TaskFolders) -> Program:
    """What to execute. Raises UsageError for quotes without end and for a single argument that no kernel takes."""
    entrypoint = _split(spec.entrypoint, "entrypoint") if spec.entrypoint else None
    if spec.shell is None:
        words = _split(spec.command, "command")
        if max(map(_size, words), default=0) >= 128 * 1024:
            raise UsageError("one argument of the command is longer than 128 KiB, which no kernel takes; use --shell, or an input file")
        return Program(words, entrypoint)
    shell = _split(spec.shell, "shell")
    if not shell:
        raise UsageError("the shell is empty")
    if Path(shell[0]).name in SHELLS_WITH_C and _size(spec.command) < MOST_INLINE_BYTES:
        return Program([*shell, "-c", spec.command], entrypoint)
    place = str(folders.script) if spec.container == BARE else FOLDER_OF_SCRIPT
    return Program([*shell, place], entrypoint, spec.command.encode())


def environment_of(assignment: Assignment, folders: TaskFolders, resource: Path, hardware: Hardware, concurrency: int) -> dict[str, str]:
    """The variables of a task: its own, its share of the machine, its folders when it is bare, then `--env`."""
    spec = assignment.spec
    cpus = spec.cpus if spec.cpus is not None else hardware.cpus / max(concurrency, 1)
    memory = spec.mem_gib if spec.mem_gib is not None else hardware.mem_gib / max(concurrency, 1)
    threads = max(1, int(cpus))
    env = {
        "SCITQ_TASK_ID": str(assignment.task_id),
        "CPU": str(threads),
        "THREADS": str(threads),
        "MEM": f"{memory:.4g}",
    }
    if assignment.array_index is not None:
        env["SCITQ_ARRAY_INDEX"] = str(assignment.array_index)
    if assignment.item is not None:
        env["SCITQ_ITEM"] = assignment.item
    if spec.container == BARE:
        env |= _of_user()
        env |= {
            "INPUT": str(folders.input),
            "OUTPUT": str(folders.output),
            "RESOURCE": str(resource),
            "TEMP": str(folders.temp),
            "TMPDIR": str(folders.temp),
        }
    return env | spec.env


_user: dict[str, str] = {}


def _of_user() -> dict[str, str]:
    """What a program expects of its account and nothing else of this process's environment."""
    if not _user:
        _user["PATH"] = os.environ.get("PATH") or "/usr/local/bin:/usr/bin:/bin"
        for name in ("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ"):
            if os.environ.get(name):
                _user[name] = os.environ[name]
        if "HOME" not in _user:
            with suppress(KeyError):
                _user["HOME"] = pwd.getpwuid(os.getuid()).pw_dir
    return _user


def _split(text: str, what: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"the {what} can't be split into words: {error}") from None


def _size(text: str) -> int:
    return len(text.encode())
