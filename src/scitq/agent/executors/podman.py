"""Runs containers through podman's Docker-compatible socket, as root or rootless."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from scitq.agent.executors.base import Sink
from scitq.agent.executors.docker import DockerExecutor
from scitq.errors import UnavailableError
from scitq.util import clock, proc

START_WITHIN_S = 20.0


class PodmanExecutor(DockerExecutor):
    """Uses a socket that is there (`CONTAINER_HOST`, the user's or the system's), else runs `podman system service` itself."""

    name = "podman"
    logs_by_driver = ""

    def __init__(self, uid: str, work_dir: Path, sink: Sink) -> None:
        self._service: subprocess.Popen[bytes] | None = None
        for url in _sockets():
            try:
                super().__init__(uid, sink, url)
            except UnavailableError:
                continue
            return
        program = shutil.which("podman")
        if program is None:
            raise UnavailableError("podman is not installed")
        url = f"unix://{work_dir / 'podman.sock'}"
        self._service = proc.start(
            [program, "system", "service", "-t", "0", url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline_s = clock.monotonic_s() + START_WITHIN_S
        while True:
            try:
                super().__init__(uid, sink, url)
            except UnavailableError:
                if clock.monotonic_s() > deadline_s or self._service.poll() is not None:
                    self._service.kill()
                    raise
                clock.sleep_s(0.1)
            else:
                return

    def close(self) -> None:
        """End the service that this agent started; containers go on without it."""
        super().close()
        if self._service is not None:
            self._service.terminate()
            self._service.wait(10)


def _sockets() -> Iterator[str]:
    if os.environ.get("CONTAINER_HOST"):
        yield os.environ["CONTAINER_HOST"]
    folders = [os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{os.getuid()}", "/run" if os.geteuid() == 0 else ""]
    for folder in folders:
        path = Path(folder or "/nowhere", "podman", "podman.sock")
        if path.is_socket():
            yield f"unix://{path}"
