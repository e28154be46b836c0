"""Runs containers with apptainer (or singularity), for machines where nobody is root; processes are held by the keeper."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

from scitq.agent.executors.bare import BareExecutor
from scitq.agent.executors.base import FOLDER_OF_SCRIPT, Adopted, ImageError, Job, Program, Sink
from scitq.agent.keeper.messages import Key
from scitq.errors import UnavailableError
from scitq.storage.base import Cancel
from scitq.util import clock, proc


class ApptainerExecutor:
    """Images are pulled and converted once, into `work_dir/images`, under a lock that agents of one folder share."""

    name = "apptainer"

    def __init__(self, work_dir: Path, bare: BareExecutor, sink: Sink) -> None:
        program = shutil.which("apptainer") or shutil.which("singularity")
        if program is None:
            raise UnavailableError("apptainer is not installed")
        self._program = program
        self._images = work_dir / "images"
        self._bare = bare
        self._sink = sink

    def image_file(self, image: str) -> Path:
        """Where the converted image lies; a local .sif file is used as it is."""
        if image.endswith(".sif") and image.startswith("/"):
            return Path(image)
        return self._images / f"{hashlib.sha256(image.encode()).hexdigest()[:32]}.sif"

    def prepare(self, image: str, credentials: dict[str, dict[str, str]], cancel: Cancel) -> None:
        """Pull and convert unless that was done."""
        target = self.image_file(image)
        if target.exists():
            return
        if target == Path(image):
            raise ImageError(f"image {image}: there is no such file on this worker")
        self._images.mkdir(exist_ok=True, mode=0o700)
        with (self._images / f"{target.stem}.lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    cancel.check()
                    clock.sleep_s(0.2)
            if not target.exists():
                self._pull(image, target, credentials, cancel)

    def _pull(self, image: str, target: Path, credentials: dict[str, dict[str, str]], cancel: Cancel) -> None:
        temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.sif")
        source = image if "://" in image else f"docker://{image}"
        host = source.partition("://")[2].split("/")[0]
        entry = credentials.get(host) or (credentials.get("docker.io") if "." not in host and ":" not in host else None) or {}
        env = {"APPTAINER_CACHEDIR": str(self._images / "cache"), "SINGULARITY_CACHEDIR": str(self._images / "cache")}
        for prefix in ("APPTAINER", "SINGULARITY"):
            if entry:
                env[f"{prefix}_DOCKER_USERNAME"] = entry.get("username", "")
                env[f"{prefix}_DOCKER_PASSWORD"] = entry.get("password", "")
        process = proc.start(
            [self._program, "pull", temporary, source], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        try:
            with cancel.on_cancel(lambda: os.killpg(process.pid, signal.SIGKILL)):
                _, words = process.communicate()
            cancel.check()
            if process.returncode != 0:
                raise ImageError(f"image {image}: {words.decode('utf-8', 'replace').strip()[-2000:] or 'apptainer pull failed'}")
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def command(self, job: Job) -> list[str]:
        """The command line: the image's entry point through `run`, another one through `exec`."""
        folders, program = job.folders, job.program
        binds = [
            f"{folders.input}:/input:rw",
            f"{folders.output}:/output:rw",
            f"{job.resource}:/resource:ro",
            f"{folders.temp}:/tmp:rw",
        ]
        if program.script is not None:
            binds.append(f"{folders.script}:{FOLDER_OF_SCRIPT}:ro")
        options = ["--containall", "--cleanenv", "--no-home", "--writable-tmpfs"]
        for bind in binds:
            options += ["--bind", bind]
        if job.assignment.spec.gpus:
            options.append("--nv")
        if job.network == "none":
            options += ["--net", "--network", "none"]
        image = str(self.image_file(job.assignment.spec.container))
        words = ["run", *options, image] if program.entrypoint is None else ["exec", *options, image, *program.entrypoint]
        return [self._program, *words, *program.words]

    def start(self, job: Job) -> None:
        """As a bare task of the keeper; variables go by APPTAINERENV_, which takes any value."""
        env = {name: os.environ[name] for name in ("PATH", "HOME", "USER", "LANG", "XDG_RUNTIME_DIR") if os.environ.get(name)}
        for name, value in job.env.items():
            env[f"APPTAINERENV_{name}"] = env[f"SINGULARITYENV_{name}"] = value
        if job.program.script is not None:
            job.folders.script.write_bytes(job.program.script)
            job.folders.script.chmod(0o755)
        program = Program(self.command(job))
        self._bare.start(replace(job, program=program, env=env))

    def signal(self, key: Key, number: int) -> None:
        """To all processes."""
        self._bare.signal(key, number)

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
