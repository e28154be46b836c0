"""Runs containers through the Docker engine's API; the same code serves podman's socket (executors/podman)."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests
from docker.types import DeviceRequest, LogConfig
from docker.utils import parse_repository_tag

from scitq.agent.executors.base import FOLDER_OF_SCRIPT, Adopted, Ended, ImageError, Job, Sink
from scitq.agent.executors.usage import ContainerUse
from scitq.agent.folders import TaskFolders
from scitq.agent.keeper.messages import Key
from scitq.agent.tasklog import STDERR, STDOUT, LogWriter
from scitq.errors import UnavailableError
from scitq.storage.base import Cancel
from scitq.util import clock

logger = logging.getLogger(__name__)

AGENT, TASK, ATTEMPT, FOLDER = "scitq.agent", "scitq.task", "scitq.attempt", "scitq.folder"
LOG_CAP, MOST_MEMORY = "scitq.log_cap", "scitq.most_memory"
_ENGINE_ERRORS = (docker.errors.APIError, docker.errors.DockerException, requests.RequestException, OSError)
_AGAIN_S = 2.0
_KILLED = 137
TOLD_EVERY_S = 0.05
_FRAME = struct.Struct(">BxxxI")
"""Head of a piece of output in the engine's stream: 1 or 2, three bytes unused, length."""


_NETWORK_HELPERS = ("/dev/net/tun", "slirp4netns", "pasta", "netavark", "rootless netns")
"""What podman makes networks with, as its messages name it."""


class DockerExecutor:
    """One thread for each running container reads its output and waits for its end."""

    name = "docker"

    def __init__(self, uid: str, sink: Sink, url: str | None = None) -> None:
        self._uid = uid
        self._sink = sink
        try:
            base = url or os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
            self._api = docker.APIClient(base_url=base, timeout=120, num_pools=64, version="auto")
            info = self._api.info()
        except _ENGINE_ERRORS as error:
            raise UnavailableError(f"{self.name} does not answer: {error}") from None
        self._lock = threading.Lock()
        self._image_locks: dict[str, threading.Lock] = {}
        self._containers: dict[Key, str] = {}
        self._use = ContainerUse()
        self._is_rootless = bool(info.get("Rootless")) or "name=rootless" in (info.get("SecurityOptions") or ())
        # an ordinary user can make no cgroups of version 1: the engine then neither measures nor limits
        self.has_cgroups = not (self._is_rootless and str(info.get("CgroupVersion", "1")) == "1")

    # --- images ----------------------------------------------------------------------------------------------------

    def prepare(self, image: str, credentials: dict[str, dict[str, str]], cancel: Cancel) -> None:
        """Pull the image unless it is here; many tasks that want it wait for one pull."""
        with self._lock:
            lock = self._image_locks.setdefault(image, threading.Lock())
        while not lock.acquire(timeout=0.2):
            cancel.check()
        try:
            if not self._has(image):
                self._pull(image, credentials, cancel)
        except (docker.errors.DockerException, requests.RequestException) as error:
            if not self._has(image):
                raise ImageError(f"image {image}: {_words(error)}") from None
        finally:
            lock.release()

    def _has(self, image: str) -> bool:
        try:
            self._api.inspect_image(image)
        except (docker.errors.ImageNotFound, docker.errors.NotFound):
            return False
        return True

    def _pull(self, image: str, credentials: dict[str, dict[str, str]], cancel: Cancel) -> None:
        repository, tag = parse_repository_tag(image)
        host = repository.split("/")[0]
        is_named = "/" in repository and ("." in host or ":" in host or host == "localhost")
        entry = credentials.get(host if is_named else "docker.io")
        logger.info("pulling %s", image)
        for line in self._api.pull(repository, tag=tag or "latest", stream=True, decode=True, auth_config=dict(entry) if entry else None):
            cancel.check()
            if line.get("error"):
                if self._has(image):
                    return
                raise ImageError(f"image {image}: {line['error']}")

    # --- jobs ------------------------------------------------------------------------------------------------------

    def start(self, job: Job) -> None:
        """In a thread of its own."""
        if job.program.script is not None:
            job.folders.script.write_bytes(job.program.script)
            job.folders.script.chmod(0o755)
        self._thread(job.key, lambda: self._run(job))

    def signal(self, key: Key, number: int) -> None:
        """To the container's first process; SIGKILL ends all of them."""
        self._quietly(key, lambda container: self._api.kill(container, signal=int(number)))

    def freeze(self, key: Key, is_frozen: bool) -> None:
        """By the freezer cgroup."""
        self._quietly(key, self._api.pause if is_frozen else self._api.unpause)

    def release(self, key: Key) -> None:
        """Remove the container."""

        def remove(container: str) -> None:
            self._api.remove_container(container, force=True, v=True)
            with self._lock:
                self._containers.pop(key, None)

        self._quietly(key, remove)

    def close(self) -> None:
        """Containers that still run are found again by their labels."""
        self._use.stop()

    def adopt(self) -> list[Adopted]:
        """All containers of this agent; those that never started are removed."""
        found = []
        for entry in self._api.containers(all=True, filters={"label": f"{AGENT}={self._uid}"}):
            labels, container = entry["Labels"], entry["Id"]
            state = self._api.inspect_container(container)["State"]
            if TASK not in labels or state["Status"] == "created":
                with suppress(*_ENGINE_ERRORS):
                    self._api.remove_container(container, force=True)
                continue
            key = int(labels[TASK]), int(labels[ATTEMPT])
            self._containers[key] = container
            age_s = max(0.0, clock.now_ms() / 1000 - datetime.fromisoformat(state["StartedAt"][:19] + "+00:00").timestamp())
            found.append(Adopted(key, b"", age_s, state["Running"]))
            folders = TaskFolders(Path(labels[FOLDER]))
            # The defaults bind the values of this turn of the loop, which mypy does not follow.
            self._thread(key, lambda key=key, folders=folders, cap=int(labels[LOG_CAP]): self._follow(key, folders, cap))  # type: ignore[misc] # as above
        return found

    def clear(self) -> int:
        """Remove all containers of this agent, of which none must be in use; how many there were."""
        found = self._api.containers(all=True, filters={"label": f"{AGENT}={self._uid}"})
        for entry in found:
            try:
                self._api.remove_container(entry["Id"], force=True, v=True)
            except docker.errors.NotFound:
                continue
            except _ENGINE_ERRORS as error:
                raise UnavailableError(f"{self.name}: {_words(error)}") from None
        return len(found)

    def fix_permissions(self, folder: Path, image: str) -> None:
        """Open what another user's processes left, by a container of the same image; root needs no help.

        An image that has no tools of its own (`FROM scratch`) sees those of this machine instead.
        """
        if os.geteuid() == 0:
            return
        owner = "0:0" if self._is_rootless else f"{os.getuid()}:{os.getgid()}"  # an engine of this user's own calls this user root
        machine = {name: {"bind": name, "mode": "ro"} for name in ("/bin", "/lib", "/lib64", "/usr") if Path(name).exists()}
        for words in (["chown", "-R", owner, "/fix"], ["chmod", "-R", "u+rwX", "/fix"]):
            if not self._helps(folder, image, words, {}):
                self._helps(folder, image, [shutil.which(words[0]) or words[0], *words[1:]], machine)

    def _helps(self, folder: Path, image: str, words: list[str], more: dict[str, dict[str, str]]) -> bool:
        """Run a tool on `folder`; whether it did its work."""
        binds = {str(folder): {"bind": "/fix", "mode": "rw"}, **more}
        container = ""
        try:
            host = self._api.create_host_config(binds=binds, network_mode="none")
            container = self._api.create_container(
                image, command=words[1:], entrypoint=words[:1], user="0:0", host_config=host, labels={AGENT: self._uid}
            )["Id"]
            self._api.start(container)
            return bool(self._wait(container)["ExitCode"] == 0)
        except _ENGINE_ERRORS as error:
            logger.warning("%s in a container of %s failed: %s", words[0], image, _words(error))
            return False
        finally:
            if container:
                with suppress(*_ENGINE_ERRORS):
                    self._api.remove_container(container, force=True)

    def host_config(self, job: Job) -> dict[str, Any]:
        """Mounts and limits."""
        spec, folders = job.assignment.spec, job.folders
        binds = {
            str(folders.input): {"bind": "/input", "mode": "rw"},
            str(folders.output): {"bind": "/output", "mode": "rw"},
            str(job.resource): {"bind": "/resource", "mode": "ro"},
            str(folders.temp): {"bind": "/tmp", "mode": "rw"},  # noqa: S108 - in the container
        }
        if job.program.script is not None:
            binds[str(folders.script)] = {"bind": FOLDER_OF_SCRIPT, "mode": "ro"}
        options: dict[str, Any] = {"binds": binds, "network_mode": job.network, "log_config": self.log_config(job)}
        if spec.cpus:
            options["nano_cpus"] = int(spec.cpus * 1e9)
        if spec.mem_gib:
            options["mem_limit"] = options["memswap_limit"] = _most_memory(job)
        if spec.gpus:
            devices = job.env.get("CUDA_VISIBLE_DEVICES", "").split(",")
            options["device_requests"] = [DeviceRequest(device_ids=devices, capabilities=[["gpu"]])]
        return dict(self._api.create_host_config(**options))

    def log_config(self, job: Job) -> LogConfig:
        """The driver that keeps the bytes as they are (json-file replaces what is not UTF-8)."""
        size = str(max(20 << 20, job.log_cap * 2))
        return LogConfig(type="local", config={"max-size": size, "max-file": "1", "compress": "false"})

    def _run(self, job: Job) -> None:
        """Create, attach, start, read to the end, tell."""
        spec, program = job.assignment.spec, job.program
        labels = {
            AGENT: self._uid,
            TASK: str(job.key[0]),
            ATTEMPT: str(job.key[1]),
            FOLDER: str(job.folders.root),
            LOG_CAP: str(job.log_cap),
            MOST_MEMORY: str(_most_memory(job)),
        }
        try:
            container = self._api.create_container(
                spec.container,
                command=program.words,
                entrypoint=program.entrypoint,
                environment=job.env,
                host_config=self.host_config(job),
                labels=labels,
                name=f"scitq-{self._uid[:8]}-{job.key[0]}-{job.key[1]}",
            )["Id"]
            self._containers[job.key] = container
            output = self._api.attach(container, stdout=True, stderr=True, stream=True, logs=False, demux=True)
            self._api.start(container)
        except _ENGINE_ERRORS as error:
            self._sink.ended(_not_started(job, _words(error)))
            return
        self._sink.started(job.key)
        self._read(job.key, job.folders, job.log_cap, output)

    def _follow(self, key: Key, folders: TaskFolders, cap: int) -> None:
        """An adopted container: its log is read from the start, without what the file holds already."""
        self._read(key, folders, cap, None)

    def _read(self, key: Key, folders: TaskFolders, cap: int, output: Iterator[tuple[bytes | None, bytes | None]] | None) -> None:
        log = LogWriter(folders.log, cap, resume=output is None)
        container = self._containers[key]
        self._watch_use(key, container)
        while True:
            try:
                if output is None:
                    output = self._logged(container, log)
                self._copy(key, log, output)
                state = self._wait(container)
                status = int(state["ExitCode"])
                break
            except docker.errors.NotFound:
                log.close()
                self._use.done(key)
                self._sink.ended(Ended(key, None, "its container was removed by somebody else", "lost", log_bytes=log.size))
                return
            except _ENGINE_ERRORS as error:
                logger.warning("task %d: %s; trying again", key[0], _words(error))
                clock.sleep_s(_AGAIN_S)
                output = None
        log.close()
        use, is_out_of_memory = self._use.done(key)
        cause = "oom" if state.get("OOMKilled") or (is_out_of_memory and status == _KILLED) else ""
        self._sink.ended(Ended(key, status, "", cause, use=use, log_bytes=log.size))

    def _watch_use(self, key: Key, container: str) -> None:
        pid = partial(self.first_pid, container)
        if self.has_cgroups:
            self._use.watch(key, container, pid)
        else:
            labels = self._api.inspect_container(container)["Config"]["Labels"]
            kill = partial(self.signal, key, signal.SIGKILL)
            self._use.watch_ungrouped(key, container, pid, int(labels.get(MOST_MEMORY, 0)), kill)

    def first_pid(self, container: str) -> int:
        """The container's first process, as the engine sees it."""
        return int(self._api.inspect_container(container)["State"]["Pid"])

    def _wait(self, container: str) -> dict[str, Any]:
        """The container's state, once it has ended."""
        self._api.wait(container, timeout=24 * 3600)
        return dict(self._api.inspect_container(container)["State"])

    def _copy(self, key: Key, log: LogWriter, output: Iterator[tuple[bytes | None, bytes | None]]) -> None:
        told_s = 0.0
        for out, err in output:
            if out:
                log.write(STDOUT, out)
            if err:
                log.write(STDERR, err)
            log.spill()
            now_s = clock.monotonic_s()
            if now_s - told_s > TOLD_EVERY_S:
                told_s = now_s
                self._sink.grown(key, log.size)

    def _logged(self, container: str, log: LogWriter) -> Iterator[tuple[bytes | None, bytes | None]]:
        """What the engine kept, and then what comes, without the bytes of each stream that `log` has seen."""
        skip = {STDOUT: log.seen[STDOUT], STDERR: log.seen[STDERR]}
        for out, err in self._kept(container):
            kept: list[bytes | None] = []
            for stream, data in ((STDOUT, out), (STDERR, err)):
                if data and skip[stream]:
                    skipped = min(skip[stream], len(data))
                    skip[stream] -= skipped
                    kept.append(data[skipped:])
                else:
                    kept.append(data)
            yield kept[0], kept[1]

    def _kept(self, container: str) -> Iterator[tuple[bytes | None, bytes | None]]:
        """The log that the engine keeps, from its start to the container's end."""
        return self._kept_now(container, is_followed=True)

    def _kept_now(self, container: str, *, is_followed: bool) -> Iterator[tuple[bytes | None, bytes | None]]:
        """The log that the engine keeps, to its end now or to the container's. (The SDK's `logs` mixes the streams.)"""
        url = self._api._url("/containers/{0}/logs", container)
        wanted = {"stdout": 1, "stderr": 1, "follow": int(is_followed), "tail": "all"}
        with self._api._get(url, params=wanted, stream=True, timeout=None) as response:
            self._api._raise_for_status(response)
            while len(header := response.raw.read(_FRAME.size)) == _FRAME.size:
                stream, length = _FRAME.unpack(header)
                data = response.raw.read(length)
                yield (data, None) if stream == STDOUT else (None, data)

    # --- threads ---------------------------------------------------------------------------------------------------

    def _thread(self, key: Key, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                logger.error("task %d: %s", key[0], error, exc_info=error)
                self._sink.ended(Ended(key, None, str(error), "lost", is_own_fault=True, log=b""))

        threading.Thread(target=run, name=f"container-{key[0]}", daemon=True).start()

    def _quietly(self, key: Key, work: Callable[[str], None]) -> None:
        """Do something to a container in a thread; one that is gone or is not in the state for it is fine."""

        def run() -> None:
            container = self._containers.get(key)
            if container is not None:
                with suppress(*_ENGINE_ERRORS):
                    work(container)

        threading.Thread(target=run, name=f"order-{key[0]}", daemon=True).start()


def _most_memory(job: Job) -> int:
    """Bytes that the container may use, 0 for no limit; engines refuse less than 6 MiB."""
    asked = job.assignment.spec.mem_gib
    return max(6 << 20, int(asked * (1 << 30))) if asked else 0


def _not_started(job: Job, words: str) -> Ended:
    """Why a container could not be started, in words that help."""
    spec = job.assignment.spec
    lowered = words.lower()
    if any(name in lowered for name in _NETWORK_HELPERS):
        words = f"the engine can't make the network {job.network!r}: set worker.network to host or none in scitq.yaml; its words: {words}"
    elif "no such file or directory" in lowered or "executable file not found" in lowered or "not found" in lowered:
        if spec.shell:
            words = f"the image {spec.container} has no {spec.shell.split()[0]}: {words}"
        elif "exec" in lowered:
            words = f"command not found in the image {spec.container} (one with | > && or $ needs --shell sh): {words}"
    elif "exec:" in lowered and "permission denied" in lowered:
        words = f"the command is found in the image {spec.container}, but is not executable: {words}"
    is_task = "exec" in lowered or "oci runtime" in lowered or "no such image" in lowered
    return Ended(job.key, None, words, "start", is_own_fault=not is_task, log=b"")


def _words(error: BaseException) -> str:
    explanation = getattr(error, "explanation", None)
    if isinstance(explanation, bytes):
        explanation = explanation.decode("utf-8", "replace")
    return str(explanation or error)
