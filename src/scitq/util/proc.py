"""The only place that starts processes.

The one-file executable runs with a changed environment (its own libraries); what it starts must get the original
back (contract CLI-9): util/bundle restores it at the very start, for children of libraries too.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from scitq.util import bundle, clock

_ALL_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})

_END_WITHIN_S = 5
_GUARD = f'while read -r _; do :; done; kill -s TERM -- "-$1" && sleep {_END_WITHIN_S} && kill -s KILL -- "-$1"'
"""Its input ends with the process that holds the other end, however that ends; then it ends the group `$1`."""


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


def may_gain_privileges() -> bool:
    """Whether setuid programs have an effect: not below a unit with NoNewPrivileges=yes, nor in many containers."""
    try:
        return "\nNoNewPrivs:\t1\n" not in Path("/proc/self/status").read_text()
    except OSError:
        return True


def replace_self(argv: Sequence[str]) -> NoReturn:
    """Become a freshly started `scitq` with the arguments `argv`; open files of ours are closed on the way."""
    command = [*own_command(), *argv]
    os.execvpe(command[0], command, clean_environment())  # noqa: S606 - the same program again


class Helper:
    """A child, leader of a process group and session of its own; the whole group ends with this process, also when that is killed.

    The kernel's own signal for that (PR_SET_PDEATHSIG) reaches the child alone, and podman of an ordinary user is two processes:
    the first becomes the parent of one in the user's namespace, and exits on SIGTERM without always handing it on.
    """

    def __init__(self, argv: Sequence[str | Path], **options: Any) -> None:  # noqa: ANN401 - Popen's own options
        self._lock = threading.Lock()
        self._process = start(argv, start_new_session=True, **options)
        words = ["/bin/sh", "-c", _GUARD, "sh", str(self._process.pid)]
        null = subprocess.DEVNULL
        self._guard = start(words, stdin=subprocess.PIPE, stdout=null, stderr=null, cwd="/", start_new_session=True)

    def status(self) -> int | None:
        """Its exit status once it has ended."""
        return self._process.poll()

    def wait(self) -> None:
        """Until it ends; what it leaves is ended, too."""
        self._process.wait()
        self.end()

    def complaints(self) -> bytes:
        """What it says on stderr (a pipe) until it ends; what it leaves is ended, too."""
        _, said = self._process.communicate()
        self.end()
        return said or b""

    def kill(self) -> None:
        """End the group at once, from any thread."""
        self._signal(signal.SIGKILL)

    def end(self) -> None:
        """End the group: SIGTERM, and after some seconds SIGKILL."""
        with self._lock:
            deadline_s = clock.monotonic_s() + _END_WITHIN_S
            self._signal(signal.SIGTERM)
            while self.status() is None or _group(self._process.pid):
                if clock.monotonic_s() > deadline_s:
                    self._signal(signal.SIGKILL)
                    self._process.wait()
                    break
                clock.sleep_s(0.02)
            self._guard.kill()
            self._guard.communicate()

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def _group(leader: int) -> list[int]:
    """The processes of a group, without those that have ended and were not waited for."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            if state not in "ZX" and int(group) == leader:
                found.append(int(stat.parent.name))
    return found
