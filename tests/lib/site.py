"""A whole site for tests: a real `scitq serve` and real `scitq agent`s in a folder, on free ports, and a shell to type commands in.

    with Site(tmp_path, scitq_argv) as site:
        site.agent(concurrency=2)
        made = site.ok("task create --container bare --command 'echo hello'")
        site.wait_status(int(made.out), "S")

Nothing of the caller's home, session or environment is used: HOME and the runtime folder lie in the site's folder. Every process
started here is ended by `close`, by its own number.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bcrypt

SOURCE = Path(__file__).resolve().parents[2] / "src"
PASSWORD = "correct horse"
DEADLINE_S = 60.0


@dataclass
class Ran:
    """What a command did."""

    argv: list[str]
    status: int
    out: str
    err: str
    raw: bytes = field(repr=False, default=b"")

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def ids(self) -> list[int]:
        return [int(line) for line in self.out.split()]

    @property
    def id(self) -> int:
        (one,) = self.ids
        return one


def wait_until(condition: Callable[[], Any], what: str = "the condition", deadline_s: float = DEADLINE_S) -> Any:
    """Ask until the answer is true, and return it."""
    end = time.monotonic() + deadline_s
    pause_s = 0.05
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true within {deadline_s:g} s")
        time.sleep(pause_s)
        pause_s = min(0.5, pause_s * 1.3)


@functools.cache
def hashed(password: str) -> str:
    """A quick bcrypt hash."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def clean_environment(home: Path) -> dict[str, str]:
    """An environment with nothing of scitq in it, and a home of its own."""
    runtime = home / "run"
    runtime.mkdir(parents=True, exist_ok=True)
    runtime.chmod(0o700)
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "TZ", "CI", "TMPDIR", "DOCKER_HOST"}}
    return kept | {"HOME": str(home), "XDG_RUNTIME_DIR": str(runtime), "PYTHONPATH": str(SOURCE), "PYTHONDONTWRITEBYTECODE": "1"}


def _signals() -> None:
    """Signals as a terminal gives them, whatever the parent ignores."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)


class Shell:
    """Somebody who types commands: a home, an environment, a token."""

    def __init__(self, argv: Sequence[str], environment: dict[str, str]) -> None:
        self.argv = list(argv)
        self.environment = environment

    def start(self, words: str | Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a command and go on; the caller ends it."""
        typed = shlex.split(words) if isinstance(words, str) else list(words)
        environment = {name: value for name, value in (self.environment | options.pop("env", {})).items() if value is not None}
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen([*self.argv, *typed], env=environment, preexec_fn=_signals, **options)

    def run(self, words: str | Sequence[str], *, stdin: str | bytes | None = None, deadline_s: float = DEADLINE_S, **options: Any) -> Ran:
        """Run a command to its end. `env`: variables to change (None takes one away)."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        process = self.start(words, **({"stdin": subprocess.PIPE} if data is not None else {}), **options)
        try:
            out, err = process.communicate(data, timeout=deadline_s)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise AssertionError(f"{process.args} did not end within {deadline_s:g} s; stdout {out!r}, stderr {err!r}") from None
        argv = [str(word) for word in process.args]
        return Ran(argv, process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"), out)

    def ok(self, words: str | Sequence[str], **options: Any) -> Ran:
        """Run a command that must succeed."""
        ran = self.run(words, **options)
        assert ran.status == 0, ran
        return ran

    def fails(self, words: str | Sequence[str], status: int, **options: Any) -> Ran:
        """Run a command that must fail with `status`."""
        ran = self.run(words, **options)
        assert ran.status == status, ran
        return ran

    def create(self, command: str, more: str | Sequence[str] = "", *, container: str = "bare") -> int:
        """Create one task; its id."""
        extra = shlex.split(more) if isinstance(more, str) else list(more)
        return self.ok(["task", "create", "--container", container, "--command", command, *extra]).id

    def show(self, task_id: int) -> dict[str, Any]:
        """`task show` of one task: its row with the rest beside it."""
        found: dict[str, Any] = self.ok(["task", "show", "--id", str(task_id), "--json"]).json[0]
        return found

    def status_of(self, task_id: int) -> str:
        return str(self.show(task_id)["row"]["status"])

    def wait_status(self, task_id: int, letters: str, deadline_s: float = DEADLINE_S) -> str:
        """Wait until a task is in one of the states named by `letters`; which one."""
        seen: list[str] = []

        def look() -> str:
            seen.append(self.status_of(task_id))
            return seen[-1] if seen[-1] in letters else ""

        try:
            return str(wait_until(look, f"task {task_id} in {letters}", deadline_s))
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {self.show(task_id)}") from None

    def output(self, task_id: int) -> str:
        """The log of a task that has ended."""
        return self.ok(["task", "output", "--id", str(task_id), "--follow"]).out


class Site(Shell):
    """A server, its agents and its administrator's shell, in one folder."""

    def __init__(
        self,
        folder: Path,
        argv: Sequence[str] | None = None,
        *,
        rclone: dict[str, dict[str, Any]] | None = None,
        settings: dict[str, Any] | None = None,
        worker: dict[str, Any] | None = None,
        sections: dict[str, Any] | None = None,
        is_started: bool = True,
    ) -> None:
        """rclone, worker: these sections of scitq.yaml; settings: more keys of its `scitq` section; sections: whole other sections."""
        self.folder = folder
        self.home = folder / "home"
        self.data = folder / "server"
        self.config = folder / "scitq.yaml"
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(argv or [sys.executable, "-m", "scitq"], clean_environment(self.home))
        self.server: subprocess.Popen[bytes] | None = None
        self.agents: list[subprocess.Popen[bytes]] = []
        self.port = 0
        self.key = ""
        self._sections: dict[str, Any] = {
            "scitq": {"port": 0, "data_dir": str(self.data), "admin_hashed_password": hashed(PASSWORD), "heartbeat": "1s"}
            | (settings or {}),
            "worker": worker or {},
            "rclone": rclone or {},
        } | (sections or {})
        self.write_config()
        if is_started:
            self.start_server()
            self.login()

    def write_config(self, **settings: Any) -> None:
        """Write scitq.yaml anew, with changed keys of its `scitq` section. JSON is YAML."""
        self._sections["scitq"] |= settings
        self.config.write_text(json.dumps(self._sections, indent=1))
        self.config.chmod(0o600)

    @property
    def server_log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")

    def agent_log(self, number: int = 0) -> str:
        return (self.folder / f"agent{number}.log").read_text(errors="replace")

    def start_server(self) -> None:
        """Start `scitq serve` and wait until it is ready; the port stays the same over restarts."""
        with (self.folder / "server.log").open("ab") as log:
            start = log.tell()
            words = ["serve", "--config", str(self.config)]
            self.server = self.start(words, stdout=log, stderr=log, start_new_session=True)

        def word() -> dict[str, Any]:
            assert self.server is not None
            said = self.server_log[start:]
            assert self.server.poll() is None, f"the server ended with {self.server.returncode}: {said}"
            for file in (self.home / "run/scitq/servers").glob("*.json"):
                with contextlib.suppress(OSError, ValueError):
                    found: dict[str, Any] = json.loads(file.read_text())
                    if found["pid"] == self.server.pid:
                        return found
            return {}

        found = wait_until(word, "the server's readiness")
        self.port, self.key = found["port"], found["key"]
        self.environment |= {"SCITQ_SERVER": f"127.0.0.1:{self.port}", "SCITQ_SERVER_KEY": self.key}

    def stop_server(self, number: int = signal.SIGTERM) -> None:
        """End the server with a signal."""
        assert self.server is not None
        end(self.server, number)
        self.server = None

    def restart_server(self, number: int = signal.SIGTERM) -> None:
        """End the server and start it again on the same data."""
        self.stop_server(number)
        self.start_server()

    def login(self) -> str:
        """Log the administrator in; the token is used from now on."""
        token = self.token_of("admin", PASSWORD)
        self.environment["SCITQ_TOKEN"] = token
        return token

    def token_of(self, user: str, password: str) -> str:
        words = ["login", "--user", user, "--password-stdin", "--no-session"]
        return self.ok(words, stdin=password, env={"SCITQ_TOKEN": None}).out.strip()

    def shell(self, user: str | None = None, password: str = PASSWORD, *, home: str | None = None) -> Shell:
        """Somebody else's shell, with a home of their own; logged in as `user` when that is given (made first, unless it exists)."""
        environment = clean_environment(self.folder / (home or f"home-{user or 'nobody'}"))
        environment |= {"SCITQ_SERVER": f"127.0.0.1:{self.port}", "SCITQ_SERVER_KEY": self.key}
        shell = Shell(self.argv, environment)
        if user is not None:
            if user not in [row["name"] for row in self.ok("user list --json").json]:
                self.ok(["user", "create", "--user", user, "--password-stdin"], stdin=password)
            environment["SCITQ_TOKEN"] = self.token_of(user, password)
        return shell

    def agent(
        self, *, concurrency: int = 1, more: str = "", is_waited_for: bool = True, env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start `scitq agent`; by default wait until its worker is ready."""
        number = len(self.agents)
        before = {row["id"] for row in self.workers() if row["status"] == "ready"} if is_waited_for else set()
        words = ["agent", "--config", str(self.config), "--work-dir", str(self.folder / f"work{number}"), "--concurrency", str(concurrency)]
        if "--name" not in more:
            words += ["--name", f"agent{number}"]
        with (self.folder / f"agent{number}.log").open("ab") as log:
            process = self.start([*words, *shlex.split(more)], stdout=log, stderr=log, start_new_session=True, env=env or {})
        self.agents.append(process)

        def is_ready() -> bool:
            assert process.poll() is None, f"the agent ended with {process.returncode}: {self.agent_log(number)}"
            return bool({row["id"] for row in self.workers() if row["status"] == "ready"} - before)

        if is_waited_for:
            wait_until(is_ready, "the worker's readiness")
        return process

    def workers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ok("worker list --json").json
        return found

    def tasks(self, more: str = "") -> list[dict[str, Any]]:
        """`task list --json` with `more` flags."""
        found: list[dict[str, Any]] = self.ok(f"task list --json {more}").json
        return found

    def close(self) -> None:
        """End everything that was started here."""
        for process in (*self.agents, *([self.server] if self.server else [])):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            end(process, signal.SIGTERM)
        self.agents.clear()
        self.server = None

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM, deadline_s: float = 20.0) -> int:
    """End a process by `number`, by SIGKILL when that does not help in time; its status."""
    if process.poll() is None:
        process.send_signal(number)
        try:
            process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


@contextlib.contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """The process held by SIGSTOP."""
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)
