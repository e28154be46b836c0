"""Runs containers with apptainer (or singularity), for machines where nobody is root; processes are held by the keeper."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scitq.agent.executors import apptainer_install
from scitq.agent.executors.bare import BareExecutor
from scitq.agent.executors.base import FOLDER_OF_SCRIPT, Adopted, Ended, ImageError, Job, Program, Sink
from scitq.agent.keeper.messages import Key
from scitq.agent.tasklog import HEADER, STDERR
from scitq.errors import UnavailableError
from scitq.storage.base import Cancel
from scitq.util import clock, proc

_OWN_WORDS = {255: re.compile(r"(?:FATAL:   |ERROR:   )(.*)", re.DOTALL), 1: re.compile("\x1b\\[91mERROR  : ([^\x1b]*)")}
"""By status, what apptainer writes when it can't start what it was asked to; the second is its starter's, always in colour."""
_MOST_WORDS = 2000
_READ_S = 60.0


@dataclass(frozen=True, slots=True)
class _Entry:
    """What an image made from a Docker one says of its start."""

    entrypoint: list[str]
    folder: str


class ApptainerExecutor:
    """Images are pulled and converted once, into `images`, under a lock that all agents of that folder share."""

    name = "apptainer"

    def __init__(self, images: Path, work_dir: Path, bare: BareExecutor, sink: Sink) -> None:
        self._install = apptainer_install.find()
        if set(":,") & set(str(work_dir)):
            raise UnavailableError(f"apptainer can't mount folders below {work_dir}: a colon or comma in the name means something to it")
        self._images = images
        self._bare = bare
        self._sink = sink
        self._entries: dict[tuple[Path, int], _Entry | None] = {}

    def image_file(self, image: str) -> Path:
        """Where the converted image lies; a local .sif file is used as it is."""
        if image.endswith(".sif") and image.startswith("/"):
            return Path(image)
        return self._images / f"{hashlib.sha256(image.encode()).hexdigest()[:32]}.sif"

    def prepare(self, image: str, credentials: dict[str, dict[str, str]], cancel: Cancel) -> None:
        """Pull and convert unless that was done; what is spoilt among our own images is pulled again."""
        target = self.image_file(image)
        if target == Path(image):
            if not target.exists():
                raise ImageError(f"image {image}: there is no such file on this worker")
            self._entry(target)
            return
        self._have(image, target, credentials, cancel)
        try:
            self._entry(target)
        except ImageError:
            target.unlink(missing_ok=True)
            self._have(image, target, credentials, cancel)
            self._entry(target)

    def _have(self, image: str, target: Path, credentials: dict[str, dict[str, str]], cancel: Cancel) -> None:
        if target.exists():
            return
        self._images.mkdir(exist_ok=True, mode=0o700, parents=True)
        with _locked(target.with_suffix(".lock"), cancel):
            if not target.exists():
                self._pull(image, target, credentials, cancel)

    def _pull(self, image: str, target: Path, credentials: dict[str, dict[str, str]], cancel: Cancel) -> None:
        for left in self._images.glob(f".{target.stem}.*"):  # of a pull that was killed: this one holds the lock
            shutil.rmtree(left, ignore_errors=True)
        folder = target.with_name(f".{target.stem}.{secrets.token_hex(4)}")
        host = image.split("/")[0]
        prefix = self._install.prefix
        env = {f"{prefix}_TMPDIR": str(folder), f"{prefix}_CACHEDIR": str(folder / "cache")}
        if entry := credentials.get(host) or (credentials.get("docker.io") if "." not in host and ":" not in host else None):
            env[f"{prefix}_DOCKER_USERNAME"] = entry.get("username", "")
            env[f"{prefix}_DOCKER_PASSWORD"] = entry.get("password", "")
        if host.partition(":")[0] == "localhost" or host.startswith("127."):
            env[f"{prefix}_NOHTTPS"] = "1"  # as Docker does
        made = folder / "image.sif"
        words: list[str | Path] = [self._install.program, "--silent", "pull", "--disable-cache", made, f"docker://{image}"]
        try:
            folder.mkdir(mode=0o700)
            puller = proc.Helper(words, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            with cancel.on_cancel(puller.kill):
                said = puller.complaints()
            cancel.check()
            if puller.status() != 0:
                raise ImageError(f"image {image}: {said.decode('utf-8', 'replace').strip()[-2000:] or 'apptainer pull failed'}")
            with made.open("rb") as file:
                os.fsync(file)
            made.replace(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _entry(self, file: Path) -> _Entry | None:
        """How the Docker image in `file` wants to be started, looked up once; None when it was made otherwise."""
        try:
            known_by = (file, file.stat().st_mtime_ns)
        except OSError as error:
            raise ImageError(f"image {file}: {error.strerror}") from None
        if known_by not in self._entries:
            self._entries[known_by] = self._look_up(file)
        return self._entries[known_by]

    def _look_up(self, file: Path) -> _Entry | None:
        listed = self._sif("list", str(file))
        for number in [line.partition("|")[0].strip() for line in listed.splitlines() if line.rstrip().endswith("JSON.Generic")]:
            if "oci-config.json" in self._sif("info", number, str(file)):
                config: dict[str, Any] = json.loads(self._sif("dump", number, str(file)) or "{}")
                return _Entry(list(config.get("Entrypoint") or []), config.get("WorkingDir") or "/")
        return None

    def _sif(self, *words: str) -> str:
        try:
            ran = proc.run([self._install.program, "--silent", "sif", *words], timeout_s=_READ_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ImageError(f"image {words[-1]}: {error}") from None
        if ran.returncode != 0:
            raise ImageError(f"image {words[-1]}: {ran.stderr.decode('utf-8', 'replace').strip()[-1000:]}")
        return ran.stdout.decode("utf-8", "replace")

    def command(self, job: Job) -> list[str]:
        """The command line. The image's entry point is put before the words here: its own script needs a shell in the image."""
        folders, program = job.folders, job.program
        binds = [
            f"{folders.input}:/input:rw",
            f"{folders.output}:/output:rw",
            f"{job.resource}:/resource:ro",
            f"{folders.temp}:/tmp:rw",
        ]
        if program.script is not None:
            binds.append(f"{folders.script}:{FOLDER_OF_SCRIPT}:ro")
        options = ["--containall", "--cleanenv", "--writable-tmpfs", *self._install.flags]
        for bind in binds:
            options += ["--bind", bind]
        if job.assignment.spec.gpus:
            options.append("--nv")
        if job.network == "none":
            options += ["--net", "--network", "none"]
        file = self.image_file(job.assignment.spec.container)
        entry = self._entry(file)
        options += ["--pwd", entry.folder if entry else "/"]
        if entry is None and program.entrypoint is None:
            return [self._install.program, "--silent", "run", *options, str(file), *program.words]
        before = program.entrypoint if program.entrypoint is not None or entry is None else entry.entrypoint
        return [self._install.program, "--silent", "exec", *options, str(file), *(before or []), *program.words]

    def start(self, job: Job) -> None:
        """As a bare task of the keeper; variables go by APPTAINERENV_, which takes any value."""
        env = {name: os.environ[name] for name in ("PATH", "HOME", "USER", "LANG", "XDG_RUNTIME_DIR") if os.environ.get(name)}
        env |= self._install.environment
        env[f"{self._install.prefix}_TMPDIR"] = str(job.folders.root)
        for name, value in job.env.items():
            env[f"{self._install.prefix}ENV_{name}"] = value
        if job.program.script is not None:
            job.folders.script.write_bytes(job.program.script)
            job.folders.script.chmod(0o755)
        program = Program(self.command(job))
        self._bare.start(replace(job, program=program, env=env), lambda ended: _explained(ended, job.folders.log))

    def signal(self, key: Key, number: int) -> None:
        """SIGKILL to all; others to apptainer alone, which hands them on to the command.

        A process that mounts the image must not end before the command, and a second SIGTERM makes apptainer forget its status.
        """
        self._bare.signal(key, number, to_first=number != signal.SIGKILL)

    def freeze(self, key: Key, is_frozen: bool) -> None:
        """SIGSTOP or SIGCONT to all processes."""
        self._bare.freeze(key, is_frozen)

    def adopt(self) -> list[Adopted]:
        """The keeper's children are adopted by the bare executor."""
        return []

    def release(self, key: Key) -> None:
        """The keeper may forget it."""
        self._bare.release(key)

    def fix_permissions(self, folder: Path, image: str) -> None:
        """Files belong to this user already."""

    def close(self) -> None:
        """Nothing is held here."""


@contextmanager
def _locked(file: Path, cancel: Cancel) -> Iterator[None]:
    """Hold the lock; without one where the file system knows none, for then each pull still has a name of its own."""
    with file.open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                cancel.check()
                clock.sleep_s(0.2)
            except OSError as error:
                if error.errno not in {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}:
                    raise
                break
        yield


def _explained(ended: Ended, log: Path) -> Ended:
    """When apptainer could not start the program, and so all that was written are its own words, say so in them."""
    rule = _OWN_WORDS.get(ended.status or 0)
    if rule is None:
        return ended
    start = ended.log
    if start is None:
        with log.open("rb") as file:
            start = file.read(HEADER.size + _MOST_WORDS)
    if len(start) < HEADER.size:
        return ended
    stream, length = HEADER.unpack_from(start)
    found = rule.match(start[HEADER.size : HEADER.size + min(length, _MOST_WORDS)].decode("utf-8", "replace"))
    if stream != STDERR or found is None:
        return ended
    return replace(ended, status=None, cause="start", error=found[1].strip())
