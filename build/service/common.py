"""What all test services share: folders, ports, processes that are started once and ended exactly, Debian packages."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
STATE = CACHE / "services.json"
WORK = ROOT / "out" / "services"
# What this run started, also when the service then failed to come up.
STARTED: list[dict[str, Any]] = []
IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}


class ServiceError(Exception):
    """A service cannot be had; the text says why and what to do."""


def say(text: str) -> None:
    print(f"services: {text}", file=sys.stderr, flush=True)


def read_state() -> dict[str, Any]:
    try:
        return json.loads(STATE.read_text())
    except (FileNotFoundError, ValueError):
        return {}


def write_state(state: dict[str, Any]) -> None:
    CACHE.mkdir(exist_ok=True)
    draft = STATE.with_suffix(".new")
    draft.write_text(json.dumps(state, indent=2) + "\n")
    draft.chmod(0o600)
    draft.replace(STATE)


def program(name: str) -> str:
    """The path of `name`: beside the running python first (wheels put it there), then PATH and the system's folders."""
    beside = Path(sys.executable).parent / name
    if beside.is_file():
        return str(beside)
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if not found:
        raise ServiceError(f"no program {name!r}; run build/venv.sh, then start this script with .venv/bin/python")
    return found


def have(name: str) -> bool:
    try:
        return bool(program(name))
    except ServiceError:
        return False


def debian_packages(*names: str) -> None:
    """Install Debian packages when root; otherwise say what to type. Nothing that they bring is started."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ServiceError(f"needs the Debian packages: apt-get install --no-install-recommends {' '.join(names)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    log = CACHE / "apt.log"
    CACHE.mkdir(exist_ok=True)
    with log.open("ab") as to:
        for tries in range(3):
            install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *names]
            lock = ["-o", "DPkg::Lock::Timeout=300"]
            if (
                subprocess.run([*install, *lock], env=environment, stdin=subprocess.DEVNULL, stdout=to, stderr=to, check=False).returncode
                == 0
            ):
                return
            subprocess.run(["apt-get", "update", "-q", *lock], env=environment, stdin=subprocess.DEVNULL, stdout=to, stderr=to, check=False)
            time.sleep(3 * tries)
    raise ServiceError(f"apt-get install {' '.join(names)} failed:\n{tail(log)}")


def tail(path: Path, lines: int = 25) -> str:
    try:
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return f"({path} does not exist)"


def free_port() -> int:
    """A free loopback port whose neighbour ten thousand above is free too (SeaweedFS takes that one for gRPC)."""
    for _ in range(200):
        port = random.randint(20000, 29999)
        try:
            for one in (port, port + 10000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", one))
        except OSError:
            continue
        return port
    raise ServiceError("no free port between 20000 and 30000")


def folder(name: str, *, fresh: bool = True) -> Path:
    path = WORK / name
    if fresh:
        shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True, exist_ok=True)
    return path


def start_time(pid: int) -> str | None:
    """What tells this process from a later one with the same number; None when there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else fields[19]


class Processes:
    """The processes of one service, as they go into the state file."""

    def __init__(self, service: str, where: Path) -> None:
        self.service = service
        self.where = where
        self.log = where / f"{service}.log"
        self.started: list[dict[str, Any]] = []
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, argv: Sequence[str | Path], *, name: str = "", env: dict[str, str] | None = None, grace_s: int = 20) -> int:
        """Start a detached process whose output goes to its log; returns its pid. grace_s: between SIGTERM and SIGKILL at its end."""
        self.log = self.where / f"{name or self.service}.log"
        with self.log.open("ab") as to:
            child = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=to,
                stderr=to,
                cwd=self.where,
                start_new_session=True,
                env=os.environ | (env or {}),
            )
        self.started.append(
            {"pid": child.pid, "start": start_time(child.pid), "name": name or self.service, "log": str(self.log), "grace_s": grace_s}
        )
        STARTED.append(self.started[-1])
        self._children.append(child)
        return child.pid

    def until(self, ready: Callable[[], bool], *, timeout_s: float = 60, log: Path | None = None) -> None:
        """Wait until `ready` says so; raises with the log's end when it does not, or when a process ended."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for child in self._children:
                if child.poll() is not None:
                    raise ServiceError(f"{self.service} ended with {child.returncode}:\n{tail(log or self.log)}")
            if ready():
                return
            time.sleep(0.1)
        raise ServiceError(f"{self.service} not ready after {timeout_s:.0f} s:\n{tail(log or self.log)}")


def end(processes: Sequence[dict[str, Any]]) -> None:
    """End exactly these processes, the youngest first: SIGTERM, its grace, SIGKILL."""
    for one in reversed(processes):
        pid = one["pid"]
        for number, wait_s in ((signal.SIGTERM, one.get("grace_s", 20)), (signal.SIGKILL, 5)):
            if one["start"] is None or start_time(pid) != one["start"]:
                break
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                break
            deadline = time.monotonic() + wait_s
            while time.monotonic() < deadline and start_time(pid) == one["start"]:
                _reap()
                time.sleep(0.05)


def alive(processes: Sequence[dict[str, Any]]) -> bool:
    return all(one["start"] is not None and start_time(one["pid"]) == one["start"] for one in processes)


def _reap() -> None:
    """Take the status of children of ours that ended, so that they do not look alive."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def http_answers(url: str) -> bool:
    """Whether an HTTP server answers there, whatever it says."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def roomiest(*candidates: Path, enough_gib: float) -> Path:
    """The first of these folders with enough free space, else the one with the most."""
    free = [(shutil.disk_usage(path).free / 2**30, path) for path in candidates if path.is_dir()]
    for gib, path in free:
        if gib >= enough_gib:
            return path
    return max(free)[1]
