"""The Docker engine and registries on loopback to pull from."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from service import images
from service.common import ROOT, Processes, ServiceError, debian_packages, folder, free_port, have, http_answers, program, roomiest, say

IMAGES = ("alpine:latest", "python:3.12")
PULLER, PULL_PASSWORD = "puller", "pullpass"
# bcrypt of `pullpass`, so that no hashing program is needed to start a test registry.
PULL_HTPASSWD = "puller:$2y$05$FBzMjpsmYByAQdu1qXwrS.3mt.F/Rha5WrnB7/IbMjEx9eFSWC4bi\n"


def answers() -> bool:
    """Whether a Docker engine answers to this user."""
    if not have("docker"):
        return False
    command = [program("docker"), "version", "--format", "{{.Server.Version}}"]
    try:
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def docker() -> tuple[dict[str, Any], Processes]:
    """An engine (the one that answers, else one that we start) with the test images."""
    where = folder("docker", fresh=False)
    processes = Processes("docker", where)
    if not answers():
        _start_engine(where, processes)
    images.ensure_tools()
    for tag in IMAGES:
        images.import_into_engine(program("docker"), tag)
    return {"host": os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"), "images": list(IMAGES)}, processes


def _start_engine(where: Path, processes: Processes) -> None:
    if os.environ.get("DOCKER_HOST"):
        raise ServiceError(f"DOCKER_HOST={os.environ['DOCKER_HOST']} does not answer")
    if os.geteuid() != 0:
        raise ServiceError("no Docker engine answers; as root: apt-get install docker.io, and put this user into the group docker")
    if not have("dockerd") or not have("iptables"):
        debian_packages("docker.io", "iptables")
    if answers():
        return
    _forget_dead_containerd()
    # The engine keeps its images on the disk unless that is nearly full.
    data = roomiest(Path("/var/lib"), Path("/dev/shm"), enough_gib=1.5)
    pidfile = where / "docker.pid"
    pidfile.unlink(missing_ok=True)
    say(f"starting dockerd, its log in {(where / 'docker.log').relative_to(ROOT)}")
    extra = [] if data == Path("/var/lib") else ["--data-root", str(data / "scitq-docker")]
    processes.start([program("dockerd"), "--pidfile", pidfile, "--shutdown-timeout", "5", *extra], env={"TMPDIR": "/tmp"})
    processes.until(answers, timeout_s=90)


def _forget_dead_containerd() -> None:
    """Remove a pid file of containerd that names another process: dockerd would believe it to be its containerd."""
    for name in ("/var/run/docker/containerd/containerd.pid", "/run/docker/containerd/containerd.pid"):
        path = Path(name)
        try:
            command = Path(f"/proc/{int(path.read_text())}/comm").read_text().strip()
        except (FileNotFoundError, ValueError):
            command = ""
        if command != "containerd":
            path.unlink(missing_ok=True)


def registry() -> tuple[dict[str, Any], Processes]:
    """Two registries on loopback: one open, one that asks for a user and password."""
    if not have("docker-registry"):
        debian_packages("docker-registry")
    where = folder("registry")
    (where / "htpasswd").write_text(PULL_HTPASSWD)
    processes = Processes("registry", where)
    addresses = {}
    for name, access in (("open", ""), ("private", f"auth:\n  htpasswd:\n    realm: scitq\n    path: {where / 'htpasswd'}\n")):
        port = free_port()
        config = where / f"{name}.yml"
        config.write_text(
            f"version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: {where / 'data' / name}\n"
            f"  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n{access}"
        )
        processes.start([program("docker-registry"), "serve", config], name=f"registry-{name}")
        addresses[name] = f"127.0.0.1:{port}"
        processes.until(lambda address=addresses[name]: http_answers(f"http://{address}/v2/"))
    return {"address": addresses["open"], "private": addresses["private"], "user": PULLER, "password": PULL_PASSWORD}, processes


def clean_registry() -> None:
    shutil.rmtree(folder("registry", fresh=False) / "data", ignore_errors=True)
