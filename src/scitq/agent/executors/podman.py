"""Runs containers through podman's Docker-compatible socket, as root or rootless."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker.errors
import requests
from docker.types import LogConfig

from scitq.agent.executors import ungrouped
from scitq.agent.executors.base import Job, Sink
from scitq.agent.executors.docker import DockerExecutor
from scitq.agent.keeper.messages import Key
from scitq.agent.tasklog import STDERR, STDOUT
from scitq.errors import UnavailableError
from scitq.util import clock, proc

logger = logging.getLogger(__name__)

START_WITHIN_S = 30.0
AGAIN_AFTER_S = 1.0
CLOSE_WITHIN_S = 5
LOOK_EVERY_S = 0.5
_LONGEST_SOCKET = 100
"""Bytes in the path of a Unix socket, with some room: the system's limit is 107."""


_ENDED = {"exited", "stopped", "dead"}


class PodmanExecutor(DockerExecutor):
    """Uses the socket of `CONTAINER_HOST`, else one that is there (the user's, the system's), else runs `podman system service` itself."""

    name = "podman"

    def __init__(self, uid: str, work_dir: Path, sink: Sink) -> None:
        self._service: _Service | None = None
        if named := os.environ.get("CONTAINER_HOST"):
            super().__init__(uid, sink, named)
            return
        for url in _sockets():
            try:
                super().__init__(uid, sink, url)
            except UnavailableError:
                continue
            return
        program = shutil.which("podman")
        if program is None:
            raise UnavailableError("podman is not installed")
        self._service = _Service(program, work_dir)
        deadline_s = clock.monotonic_s() + START_WITHIN_S
        while True:
            try:
                super().__init__(uid, sink, self._service.url)
            except UnavailableError:
                words = self._service.how_it_ended()
                if words is not None or clock.monotonic_s() > deadline_s:
                    self._service.close()
                    raise UnavailableError(f"podman system service: {words or 'it does not answer'}{_advice()}") from None
                clock.sleep_s(0.05)
            else:
                self._service.keep_up()
                return

    def log_config(self, _job: Job) -> LogConfig:
        """A file: beside systemd podman's own choice is the journal, which drops lines of a quick writer and is not everybody's to read."""
        return LogConfig(type="k8s-file", config={})

    def freeze(self, key: Key, is_frozen: bool) -> None:
        """By the freezer cgroup, or each process by itself."""
        if self.has_cgroups:
            super().freeze(key, is_frozen)
        else:
            self._quietly(key, lambda container: ungrouped.freeze(self.first_pid(container), is_frozen))

    def _wait(self, container: str) -> dict[str, Any]:
        """By looking: podman's own wait goes on for 20 s where process 1 leaves conmon a zombie, as in many containers."""
        pause_s = 0.01
        while True:
            state = dict(self._api.inspect_container(container)["State"])
            if state["Status"] in _ENDED:
                return state
            clock.sleep_s(pause_s)
            pause_s = min(LOOK_EVERY_S, pause_s * 2)

    def _kept(self, container: str) -> Iterator[tuple[bytes | None, bytes | None]]:
        """By looking, too: a log that podman follows does not end with a container whose conmon is a zombie."""
        told = {STDOUT: 0, STDERR: 0}
        while True:
            has_ended = self._api.inspect_container(container)["State"]["Status"] in _ENDED
            began_s = clock.monotonic_s()
            seen = {STDOUT: 0, STDERR: 0}
            for out, err in self._kept_now(container, is_followed=False):
                stream, data = (STDOUT, out) if out is not None else (STDERR, err or b"")
                seen[stream] += len(data)
                fresh = seen[stream] - told[stream]
                if fresh > 0:
                    told[stream] = seen[stream]
                    piece = data[-fresh:]
                    yield (piece, None) if stream == STDOUT else (None, piece)
            if has_ended:
                return
            # What was read already is read again: the longer that takes, the longer the pause.
            clock.sleep_s(max(LOOK_EVERY_S, 10 * (clock.monotonic_s() - began_s)))

    def close(self) -> None:
        """End the service that this agent started; containers go on without it."""
        super().close()
        if self._service is not None:
            self._api.timeout = CLOSE_WITHIN_S
            try:
                is_last = not self._api.containers()
            except (docker.errors.DockerException, requests.RequestException):
                is_last = False
            self._service.close()
            if is_last:
                _end_pause()


class _Service:
    """`podman system service`, ended with the agent, however that ends; started again when it ends by itself."""

    def __init__(self, program: str, work_dir: Path) -> None:
        self._log = work_dir / "podman.log"
        self._own_folder: Path | None = None
        # a name of its own: a service that ends removes its socket, and it may end after the next one began
        socket = work_dir / f"podman-{secrets.token_hex(4)}.sock"
        if len(os.fsencode(socket)) > _LONGEST_SOCKET:
            self._own_folder = Path(tempfile.mkdtemp(prefix="scitq-"))
            socket = self._own_folder / "podman.sock"
        self._socket = socket
        self.url = f"unix://{socket}"
        self._words = [program, "system", "service", "-t", "0", self.url]
        self._is_closed = threading.Event()
        self._process = self._start()

    def _start(self) -> proc.Helper:
        self._socket.unlink(missing_ok=True)
        with self._log.open("wb") as log:
            # conmon leaves a file `oom` where it was started
            return proc.Helper(self._words, stdout=log, stderr=log, cwd=self._log.parent)

    def how_it_ended(self) -> str | None:
        """Its last words when it has ended."""
        status = self._process.status()
        if status is None:
            return None
        lines = self._log.read_text(errors="replace").split("\n")
        return " ".join(line for line in lines[-5:] if line) or f"it ended with status {status}"

    def keep_up(self) -> None:
        """Watch it from now on."""
        threading.Thread(target=self._watch, name="podman", daemon=True).start()

    def _watch(self) -> None:
        while True:
            self._process.wait()
            if self._is_closed.wait(AGAIN_AFTER_S):
                return
            logger.warning("podman system service ended (%s); starting it again", self.how_it_ended())
            self._process = self._start()

    def close(self) -> None:
        """End it."""
        self._is_closed.set()
        self._process.end()
        self._socket.unlink(missing_ok=True)
        if self._own_folder is not None:
            shutil.rmtree(self._own_folder, ignore_errors=True)


def _advice() -> str:
    """What an ordinary user's podman can't do without, when that is what is missing."""
    if os.geteuid() == 0 or proc.may_gain_privileges():
        return ""
    return '; setuid programs have no effect here (NoNewPrivileges), and podman needs newuidmap: see docs/install.md, "Containers under the unit"'


def _sockets() -> Iterator[str]:
    folders = [os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{os.getuid()}", "/run" if os.geteuid() == 0 else ""]
    for folder in folders:
        path = Path(folder or "/nowhere", "podman", "podman.sock")
        if path.is_socket():
            yield f"unix://{path}"


def _end_pause() -> None:
    """End the process by which podman keeps an ordinary user's namespace, if it is left in the systemd unit that ends with this agent.

    podman makes it anew when it is needed; a user's own, begun elsewhere, is not ours.
    """
    file = Path(os.environ.get("XDG_RUNTIME_DIR", "/nowhere"), "libpod/tmp/pause.pid")
    if "INVOCATION_ID" in os.environ:
        with contextlib.suppress(OSError, ValueError):
            pid = int(file.read_text())
            if _cgroups(pid) == _cgroups("self"):
                os.kill(pid, signal.SIGKILL)
                file.unlink()


def _cgroups(pid: int | str) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()
