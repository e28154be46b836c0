"""The only place that starts processes.

The one-file executable runs with a changed environment (its own libraries); what it starts must get the original
back (contract CLI-9): util/bundle restores it at the very start, for children of libraries too.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from scitq.util import bundle

_PR_SET_PDEATHSIG = 1
_ALL_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, which is the user's own, with `extra` on top."""
    return dict(os.environ) | dict(extra or {})


def own_command() -> list[str]:
    """The argv that starts this same scitq again: the one file, or `python -m scitq`."""
    return bundle.own_command()


def start(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 - Popen's own options
    """Start a child with a clean environment; `env` is added to it. No shell is involved."""
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen([str(word) for word in argv], env=clean_environment(env), **options)


def start_helper(argv: Sequence[str | Path], **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 - Popen's own options
    """Start a child in a session of its own that gets SIGTERM when the calling thread ends, however it ends."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    parent = os.getpid()

    def die_with_parent() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return start(argv, start_new_session=True, preexec_fn=die_with_parent, **options)


def start_exactly(argv: Sequence[str], env: Mapping[str, str], **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 - Popen's own options
    """Start a child whose whole environment is `env`; for tasks."""
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen(list(argv), env=dict(env), **options)


def run(
    argv: Sequence[str | Path], *, timeout_s: float, env: Mapping[str, str] | None = None, data: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a child to its end with `data` as its input; raises TimeoutExpired and FileNotFoundError, never for a bad status."""
    return subprocess.run(
        [str(word) for word in argv], input=data or b"", capture_output=True, timeout=timeout_s, check=False, env=clean_environment(env)
    )


def spawn(argv: list[str], env: Mapping[str, str], *, stdout: int, stderr: int) -> int:
    """Start a child, leader of a session of its own, with empty input and exactly `env`, in the current folder; returns its pid.

    The quickest way there is (posix_spawn by vfork). `argv[0]` is searched in env's PATH. Raises FileNotFoundError,
    PermissionError or another OSError when it can't be executed.
    """
    program = argv[0] if "/" in argv[0] else _find(argv[0], env.get("PATH", os.defpath))
    return os.posix_spawn(
        program,
        argv,
        env,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, stdout, 1),
            (os.POSIX_SPAWN_DUP2, stderr, 2),
        ],
        setsid=True,
        setsigmask=[],
        setsigdef=_ALL_SIGNALS,
    )


_found: dict[tuple[str, str], str] = {}


def _find(name: str, path: str) -> str:
    """The program `name` in `path`; where it was last time is looked at first."""
    known = _found.get((name, path))
    if known is not None and os.access(known, os.X_OK):
        return known
    program = shutil.which(name, path=path)
    if program is None:
        raise FileNotFoundError(errno.ENOENT, "command not found", name)
    if len(_found) > 1000:
        _found.clear()
    _found[name, path] = program
    return program


def fork() -> int:
    """As os.fork; only for a process that has one thread, such as an agent that has just started."""
    return os.fork()


def replace_self(argv: Sequence[str]) -> NoReturn:
    """Become a freshly started `scitq` with the arguments `argv`; open files of ours are closed on the way."""
    command = [*own_command(), *argv]
    os.execvpe(command[0], command, clean_environment())  # noqa: S606 - the same program again
