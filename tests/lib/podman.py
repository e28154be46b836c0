"""podman with a storage of the test's own: images and containers of the machine's podman are not seen, and stay as they are."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.lib import services
from tests.lib.site import wait_until

CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
# vfs needs neither FUSE nor overlay mounts of an ordinary user; it copies, which is nothing for an image as small as alpine.
_STORAGE = (
    '[storage]\ndriver = "{driver}"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/data"\nrootless_storage_path = "{folder}/data"\n'
)


class Podman:
    """podman as `user` (None: the one who runs the tests), with `alpine` loaded. environment: what podman, and an agent that uses it, need."""

    def __init__(self, folder: Path, user: str | None = None) -> None:
        self.folder, self.user = folder, user
        is_root = os.geteuid() == 0 and user is None
        for name in ("storage", "runtime", "home", "tmp"):
            (folder / name).mkdir(parents=True, mode=0o700)
        (folder / "containers.conf").write_text(CONTAINERS_CONF)
        (folder / "storage.conf").write_text(_STORAGE.format(folder=folder / "storage", driver="overlay" if is_root else "vfs"))
        self.environment = {
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "XDG_RUNTIME_DIR": str(folder / "runtime"),
            "TMPDIR": str(folder / "tmp"),
        }
        if user is not None:
            self.environment["HOME"] = str(folder / "home")
            give(folder, user)

    def words(self, *words: str) -> list[str]:
        """`words` as this user would run them."""
        return [*as_user(self.user), *words] if self.user else list(words)

    def command(self, *words: str) -> str:
        """Run `podman WORDS`; returns its stdout, raises when it fails."""
        environment = {name: value for name, value in os.environ.items() if name != "CONTAINER_HOST"} | self.environment
        done = subprocess.run(
            self.words("podman", *words),
            env=environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"podman {' '.join(words)}: {done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def service(self) -> Iterator[str]:
        """`podman system service`, as this user; its address."""
        socket = self.folder / "runtime" / "service.sock"
        words = self.words("podman", "system", "service", "-t", "0", f"unix://{socket}")
        with (
            (self.folder / "service.log").open("wb") as log,
            subprocess.Popen(words, env=os.environ | self.environment, cwd=self.folder, stdin=log, stdout=log, stderr=log) as process,
        ):
            try:
                wait_until(socket.is_socket, "the socket of podman's service")
                yield f"unix://{socket}"
            finally:
                process.terminate()

    def load(self, docker: services.DockerService) -> None:
        """Copy alpine from the Docker engine."""
        archive = self.folder / "alpine.tar"
        docker.command("save", "-o", str(archive), "alpine:latest")
        archive.chmod(0o644)
        self.command("load", "-q", "-i", str(archive))
        archive.unlink()

    def remove(self) -> None:
        """Remove all that podman keeps here, and the process that holds an ordinary user's namespace."""
        with contextlib.suppress(AssertionError):
            self.command("rm", "-afi", "-t", "0")
            self.command("rmi", "-af")
        for file in self.folder.rglob("pause.pid"):
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(file.read_text()), signal.SIGKILL)
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in sorted((mount for mount in mounts if mount.startswith(f"{self.folder}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def podman(folder: Path, docker: services.DockerService, user: str | None = None) -> Iterator[Podman]:
    """A podman with alpine."""
    if not all(shutil.which(name) for name in ("podman", "runc")):
        _missing("the Debian packages podman and runc")
    made = Podman(folder, user)
    try:
        made.load(docker)
        yield made
    finally:
        made.remove()


@contextlib.contextmanager
def ordinary_user(name: str) -> Iterator[str]:
    """A user of the system with subordinate numbers, made for the test and removed afterwards."""
    if os.geteuid() != 0:
        _missing("root, which makes a user for the test")
    if not shutil.which("newuidmap"):
        _missing("the Debian package uidmap")
    with contextlib.suppress(KeyError):
        pwd.getpwnam(name)
        subprocess.run(["userdel", "--force", name], check=False, capture_output=True)
    subprocess.run(["useradd", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/bin/sh", name], check=True)
    try:
        yield name
    finally:
        subprocess.run(["userdel", "--force", name], check=False, capture_output=True)


def as_user(user: str, *groups: int) -> list[str]:
    """The words before a command that run it as `user`, in its own group and `groups` alone."""
    entry = pwd.getpwnam(user)
    more = f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"
    return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", more, "--"]


def needs_to_run_as(user: str, argv: Sequence[str]) -> None:
    """A Python of root's home, and what is installed in it, is closed to others; the one file is not."""
    if subprocess.run([*as_user(user), *argv, "--version"], cwd="/", capture_output=True, check=False).returncode != 0:
        _missing(f"a scitq that others may run ({argv[0]} is closed to them); give one by --exe")


def give(folder: Path, user: str) -> None:
    """Make `folder` and all in it the user's, and the folders above passable."""
    entry = pwd.getpwnam(user)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
    open_way(folder)


def open_way(folder: Path) -> None:
    """Make the folders above `folder` passable for everybody."""
    for above in folder.parents:
        mode = above.stat().st_mode
        if mode & 0o111 != 0o111:  # podman looks for all three
            above.chmod(mode | 0o111)


def can_run(user: str, argv: Sequence[str]) -> bool:
    """Whether `user` may start the program `argv`, from a process of their own."""
    words = [*as_user(user), "sh", "-c", '"$@" </dev/null >/dev/null 2>&1', "sh", *argv]
    return subprocess.run(words, check=False, timeout=60).returncode == 0


def _missing(what: str) -> None:
    if services.IN_CI:
        pytest.fail(f"this test needs {what}", pytrace=False)
    pytest.skip(f"needs {what}")
