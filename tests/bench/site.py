"""A server and agents in a temporary folder, driven by the real command."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from scitq.client.api import Api
from scitq.client.locate import Address

PASSWORD = "bench password"


def two_ports() -> int:
    """A free port whose next one is free too: the server tells its key there."""
    while True:
        with socket.socket() as probe, socket.socket() as neighbour:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
            try:
                neighbour.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


class Site:
    """Starts on entry, stops on exit; `scitq(...)` runs a client command and returns its stdout."""

    def __init__(self, argv: Sequence[str], storages: dict[str, dict[str, str]] | None = None) -> None:
        self.argv = list(argv)
        self.storages = storages or {}
        self.folder = Path(tempfile.mkdtemp(prefix="scitq-bench-"))
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.port = two_ports()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SCITQ_", "XDG_"))}
        home = self.folder / "home"
        home.mkdir()
        self.env = kept | {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "SCITQ_SERVER": f"127.0.0.1:{self.port}"}
        self.config = self.folder / "scitq.yaml"

    def __enter__(self) -> Site:
        made = ["config", "init", "--config", str(self.config), "--data-dir", str(self.folder / "data"), "--port", str(self.port)]
        self.scitq(*made, "--admin-password-stdin", data=PASSWORD)
        if self.storages:
            import yaml

            plain = yaml.safe_load(self.config.read_text())
            plain["rclone"] = self.storages
            self.config.write_text(yaml.safe_dump(plain))
            self.config.chmod(0o600)
        self._start("serve", "serve", "--config", str(self.config))
        deadline = time.monotonic() + 60
        while True:
            done = self._run("login", "--user", "admin", "--password-stdin", "--no-session", data=PASSWORD)
            if done.returncode == 0:
                break
            assert time.monotonic() < deadline, f"no login: {done.stderr!r}\n{self.log('serve')}"
            time.sleep(0.1)
        self.env["SCITQ_TOKEN"] = done.stdout.decode().strip()
        return self

    def api(self) -> Api:
        """The client's side of the protocol, in this process, as the administrator."""
        os.environ["SCITQ_SERVER_KEY"] = (self.folder / "data" / "server.key").read_text().split()[1]
        return Api(Address("127.0.0.1", self.port), self.env["SCITQ_TOKEN"])

    def agent(self, concurrency: int, *options: str, prefetch: int = 0) -> str:
        """Start an agent and wait until the server knows it; returns its name among the children."""
        name = f"agent-{len(self.children)}"
        before = len(self.table("worker", "list"))
        words = ["agent", "--config", str(self.config), "--concurrency", str(concurrency), "--prefetch", str(prefetch)]
        self._start(name, *words, "--work-dir", str(self.folder / name), *options)
        deadline = time.monotonic() + 60
        while len(self.table("worker", "list")) == before:
            assert time.monotonic() < deadline, f"no worker\n{self.log(name)}"
            time.sleep(0.1)
        return name

    def start_again(self) -> None:
        """Start the server, which was stopped, on its data, and wait until it answers."""
        self._start("serve", "serve", "--config", str(self.config))
        deadline = time.monotonic() + 60
        while self._run("ping").returncode:
            assert time.monotonic() < deadline, self.log("serve")
            time.sleep(0.1)

    def stop(self, name: str) -> None:
        """End one child: SIGTERM, then SIGKILL."""
        child = self.children.pop(name)
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _start(self, name: str, *words: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as to:
            self.children[name] = subprocess.Popen([*self.argv, *words], env=self.env, stdin=subprocess.DEVNULL, stdout=to, stderr=to)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(errors="replace")[-3000:]

    def _run(self, *words: str, data: str = "") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*self.argv, *words], env=self.env, input=data.encode(), capture_output=True, check=False, timeout=900)

    def scitq(self, *words: str, data: str = "") -> str:
        done = self._run(*words, data=data)
        assert done.returncode == 0, f"scitq {' '.join(words)}: exit {done.returncode}: {done.stderr.decode(errors='replace')[-2000:]}"
        return done.stdout.decode()

    def table(self, *words: str) -> list[dict[str, Any]]:
        return json.loads(self.scitq(*words, "--json"))

    def resident_mib(self, name: str) -> float:
        status = Path(f"/proc/{self.children[name].pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for name in reversed(list(self.children)):
            self.stop(name)
        shutil.rmtree(self.folder, ignore_errors=True)
