"""One suite for all that runs commands: bare, docker, podman of root and of an ordinary user, apptainer."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.lib import services
from tests.lib.apptainer import converted
from tests.lib.podman import ordinary_user, podman
from tests.lib.rig import Rig, keeper
from tests.lib.site import wait_until

from scitq.agent.executors.apptainer import ApptainerExecutor
from scitq.agent.executors.base import ImageError
from scitq.agent.executors.docker import AGENT, DockerExecutor
from scitq.agent.executors.podman import PodmanExecutor
from scitq.storage.base import Cancel

pytestmark = pytest.mark.xdist_group("executors")


class Kind:
    """What differs between executors. uid: the agent's name in labels. owner: the ordinary user whose containers are."""

    def __init__(self, name: str, folder: Path, owner: str | None = None) -> None:
        self.name, self.folder, self.uid, self.owner = name, folder, uuid.uuid4().hex, owner
        self.container = "bare" if name == "bare" else "alpine"
        self.number = 0
        self.command: Callable[..., str] | None = None

    def rig(self, life: str = "") -> Rig:
        """life: another life of the agent. One with containers has a keeper of its own: an idle keeper ends when its agent is killed."""
        makers = {
            "bare": lambda rig: rig.bare,
            "docker": lambda rig: DockerExecutor(self.uid, rig),
            "podman": lambda rig: PodmanExecutor(self.uid, self.folder, rig),
            "rootless": lambda rig: PodmanExecutor(self.uid, self.folder, rig),
            "apptainer": lambda rig: ApptainerExecutor(self.folder / "images", self.folder, rig.bare, rig),
        }
        return Rig(self.folder, makers[self.name], None if self.has_keeper else self.folder / life, self.owner)

    @property
    def has_keeper(self) -> bool:
        """Whether its processes are held by the keeper, and so taken over with it."""
        return self.name in {"bare", "apptainer"}

    def alive(self, marker: str) -> int:
        """How many processes `sleep MARKER` there are. Of containers the engine is asked: its processes may be of another pid namespace."""
        if self.command is None:
            return sum(_is_sleep(entry, marker) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        found = 0
        for container in self.command("ps", "-q", "--filter", f"label={AGENT}={self.uid}").split():
            with contextlib.suppress(AssertionError):  # it may end meanwhile
                lines = self.command("top", container).splitlines()
                found += sum(line.split()[-2:] == ["sleep", marker] for line in lines)
        return found

    def remove_all(self, rig: Rig) -> None:
        """Release what has ended, and leave no container."""
        for key in list(rig.ends):
            rig.call(lambda key=key: rig.executor.release(key))
        if self.command is not None:
            label = f"label={AGENT}={self.uid}"
            try:
                wait_until(lambda: not self.command("ps", "-aq", "--filter", label), "the removal of all containers")
            finally:
                for left in self.command("ps", "-aq", "--filter", label).split():
                    self.command("rm", "-f", left)


@pytest.fixture(
    scope="module",
    params=["bare", *(pytest.param(name, marks=pytest.mark.docker) for name in ("docker", "podman", "rootless", "apptainer"))],
)
def kind(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    with contextlib.ExitStack() as stack:
        kind = Kind(request.param, folder / "work")
        if request.param != "bare":
            docker = services.service("docker")
            kind.command = docker.command
        if request.param == "apptainer":
            kind.command = None
            kind.container = converted(folder, docker)
            changes = stack.enter_context(pytest.MonkeyPatch.context())
            changes.setenv("PATH", services.service("apptainer").path())
        if request.param in {"podman", "rootless"}:
            if request.param == "rootless":
                kind.owner = stack.enter_context(ordinary_user("scitqrootless"))
            own = stack.enter_context(podman(folder / "podman", docker, kind.owner))
            changes = stack.enter_context(pytest.MonkeyPatch.context())
            changes.delenv("CONTAINER_HOST", raising=False)
            if kind.owner:
                changes.setenv("CONTAINER_HOST", stack.enter_context(own.service()))
            else:
                for name, value in own.environment.items():
                    changes.setenv(name, value)
            kind.command = own.command
        stack.enter_context(keeper(kind.folder))
        yield kind


@pytest.fixture(scope="module")
def rig(kind):
    rig = kind.rig()
    yield rig
    kind.remove_all(rig)
    rig.close()


@pytest.fixture
def run(kind, rig):
    def run(command: str, shell: str | None = "sh", **more):
        kind.number += 1
        return rig.start(kind.number, command, container=kind.container, shell=shell, **more)

    return run


def test_log_04_both_streams_byte_for_byte_and_the_exit_status(rig, run):
    key = run(r"printf 'a\rb\000\377no newline'; echo err >&2; exit 7")
    ended = rig.end(key)
    assert (ended.status, ended.cause) == (7, "")
    assert rig.streams(key) == {1: b"a\rb\0\xffno newline", 2: b"err\n"}
    assert ended.log is not None or ended.log_bytes == rig.folders(key[0]).log.stat().st_size


def test_no_output_is_an_empty_log(rig, run):
    ended = rig.end(run("true"))
    assert (ended.status, ended.log_bytes) == (0, 0)


def test_log_03_a_long_line_and_much_output(rig, run):
    key = run("head -c 3000000 /dev/zero; seq 1 200000")
    assert rig.end(key).status == 0
    expected = b"\0" * 3_000_000 + b"".join(b"%d\n" % number for number in range(1, 200_001))
    assert hashlib.sha256(rig.streams(key)[1]).digest() == hashlib.sha256(expected).digest()


def test_log_07_the_cap_is_kept_and_the_task_goes_on(rig, run):
    key = run("head -c 500000 /dev/zero; exit 3", log_cap=1000)
    assert rig.end(key).status == 3
    found = rig.streams(key)
    assert len(found[1]) == 1000
    assert b"max_task_log" in found[3]


def test_output_is_seen_while_the_task_runs(rig, run):
    key = run("echo first; sleep 600")
    wait_until(lambda: rig.sizes.get(key), "the first line")
    assert rig.streams(key) == {1: b"first\n"}
    rig.call(lambda: rig.executor.signal(key, signal.SIGKILL))
    assert rig.end(key).status == 137


def test_cre_14_no_input_no_terminal_no_foreign_variables(rig, run, monkeypatch):
    monkeypatch.setenv("SECRET_OF_HOST", "1")
    key = run("cat; test -t 0 || echo no terminal; env", env={"GIVEN": "$x 'y'"})
    rig.end(key)
    out = rig.streams(key)[1].decode()
    assert out.startswith("no terminal\n")
    assert "GIVEN=$x 'y'\n" in out
    assert "SECRET_OF_HOST" not in out


def test_a_program_that_is_not_there_is_named(rig, run):
    ended = rig.end(run("nosuchprogram x", None))
    assert (ended.status, ended.cause) == (None, "start")
    assert "nosuchprogram" in ended.error


def test_cre_09_a_missing_shell_is_named(rig, run):
    ended = rig.end(run("x", "nosuchshell"))
    assert ended.cause == "start"
    assert "nosuchshell" in ended.error


def test_cre_10_a_script_of_a_megabyte(rig, run):
    key = run("#" + "x" * (1 << 20) + "\necho done")
    assert rig.end(key).status == 0
    assert rig.streams(key)[1] == b"done\n"


def test_cre_14_background_children_die_with_the_task(rig, run, kind):
    marker = f"{600000 + kind.number}.{uuid.uuid4().int % 100000}"
    key = run(f"sleep {marker} & setsid sleep {marker} & (setsid sleep {marker} &) ; sleep 0.2; echo out")
    assert rig.end(key).status == 0
    assert rig.streams(key)[1] == b"out\n"
    wait_until(lambda: not kind.alive(marker), "the end of the background children")


def test_a_kill_reaches_everything(rig, run, kind):
    marker = f"{700000 + kind.number}.{uuid.uuid4().int % 100000}"
    key = run(f"sleep {marker} & setsid sleep {marker} & echo up; wait")
    wait_until(lambda: kind.alive(marker) >= 2, "the children")
    rig.call(lambda: rig.executor.signal(key, signal.SIGKILL))
    assert rig.end(key).status == 137
    wait_until(lambda: not kind.alive(marker), "their end")


def test_a_task_may_end_in_its_own_way(rig, run):
    key = run("trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.1; done")
    wait_until(lambda: rig.sizes.get(key), "the first line")
    rig.call(lambda: rig.executor.signal(key, signal.SIGTERM))
    assert rig.end(key).status == 5
    assert rig.streams(key)[1] == b"up\nbye\n"


def test_a_frozen_task_stands_still_and_goes_on(rig, run):
    key = run('i=0; while test ! -e "${OUT:-/output}/end"; do echo $i; i=$((i+1)); sleep 0.05; done', env=_out(rig, run))
    wait_until(lambda: rig.sizes.get(key), "the first line")
    rig.call(lambda: rig.executor.freeze(key, True))
    wait_until(lambda: _stands_still(rig, key), "standstill")
    size = rig.sizes[key]
    rig.call(lambda: rig.executor.freeze(key, False))
    wait_until(lambda: rig.sizes[key] > size, "more output")
    (rig.folders(key[0]).output / "end").touch()
    assert rig.end(key).status == 0


def test_cre_11_out_of_memory_is_told_apart(rig, run):
    ended = rig.end(run("x=$(head -c 300000000 /dev/zero | tr '\\0' x); sleep 600", mem_gib=0.06))
    assert (ended.status, ended.cause) == (137, "oom")


def test_what_a_task_used_is_measured(rig, run):
    ended = rig.end(run("i=0; while test $i -lt 400000; do i=$((i+1)); done; sleep 2.5"))
    assert ended.use is not None
    assert (ended.use.cpu_s or 0) > 0.01
    assert (ended.use.peak_memory_bytes or 0) > 10_000


def test_a_network_that_cannot_be_made_is_named_with_what_to_do(rig, run):
    """Where it can be made, the task runs: that depends on the machine."""
    ended = rig.end(run("true", network="bridge"))
    assert ended.status == 0 or "worker.network" in ended.error, ended


@pytest.fixture
def other_keepers(kind):
    with contextlib.ExitStack() as stack:
        for life in () if kind.has_keeper else ("killed", "next"):
            stack.enter_context(keeper(kind.folder / life))
        yield


_LIFE = """
import sys
from pathlib import Path
from tests.contract.executors.test_executors import Kind
kind = Kind(sys.argv[1], Path(sys.argv[2]), sys.argv[5] or None)
kind.uid = sys.argv[3]
rig = kind.rig(sys.argv[4])
kind.container = sys.argv[6]
out = {"OUT": str(rig.folders(9001).output)} if kind.name == "bare" else {}
stays = "echo one; while test ! -e ${OUT:-/output}/go; do sleep 0.05; done; echo two; exit 4"
stays = rig.start(9001, stays, container=kind.container, shell="sh", env=out)
ends = rig.start(9002, "echo short; exit 6", container=kind.container, shell="sh")
rig.end(ends)
while not rig.sizes.get(stays):
    pass
print("ready", flush=True)
sys.stdin.read()
"""


def test_srv_03_a_running_and_an_ended_task_are_adopted(kind, rig, other_keepers):
    """Last of the rig: another life of the agent takes over what one that was killed had started."""
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(["src", ".", *sys.path]))
    words = [sys.executable, "-c", _LIFE, kind.name, str(kind.folder), kind.uid, "killed", kind.owner or "", kind.container]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as life:
        assert life.stdout is not None
        assert life.stdout.readline() == b"ready\n"
        life.kill()
    stays, ends = (9001, 1), (9002, 1)
    other = kind.rig("next")
    try:
        found = {adopted.key: adopted.is_running for adopted in other.adopted}
        assert found[stays] is True
        assert found[ends] is False
        (other.folders(stays[0]).output / "go").touch()
        assert other.end(stays).status == 4
        assert other.end(ends).status == 6
        assert other.streams(stays) == {1: b"one\ntwo\n"}
        assert other.streams(ends) == {1: b"short\n"}
        wait_until(lambda: len(other.ends) == len(other.adopted), "the ends of all that was adopted")
    finally:
        kind.remove_all(other)
        other.close()


@pytest.mark.docker
def test_cre_12_an_image_that_exists_nowhere_fails_in_the_registrys_words(tmp_path, registry_service):
    with keeper(tmp_path):
        rig = Kind("docker", tmp_path).rig()
        try:
            with pytest.raises(ImageError, match="nosuch/image"):
                rig.executor.prepare(f"{registry_service.address}/nosuch/image:1", {}, Cancel())
        finally:
            rig.close()


@pytest.mark.docker
def test_cre_12_private_registries(tmp_path, registry_service, docker_service):
    name = docker_service.push(registry_service, f"private/{uuid.uuid4().hex[:8]}:1", private=True)
    with keeper(tmp_path):
        rig = Kind("docker", tmp_path).rig()
        try:
            with pytest.raises(ImageError):
                rig.executor.prepare(name, {}, Cancel())
            account = {"username": registry_service.user, "password": registry_service.password}
            rig.executor.prepare(name, {registry_service.private: account}, Cancel())
            assert name in docker_service.command("images", "--format", "{{.Repository}}:{{.Tag}}")
        finally:
            docker_service.command("rmi", "-f", name)
            rig.close()


def _out(rig: Rig, run) -> dict[str, str]:
    """For a bare task, the folder that a container sees as /output; its number is the next one."""
    return {"OUT": str(rig.folders(_next(run)).output)} if rig.executor is rig.bare else {}


def _next(run) -> int:
    kind = next(cell.cell_contents for cell in run.__closure__ if isinstance(cell.cell_contents, Kind))
    return kind.number + 1


def _stands_still(rig: Rig, key: tuple[int, int]) -> bool:
    import time

    before = rig.sizes[key]
    time.sleep(0.5)
    return rig.sizes[key] == before


def _is_sleep(process: Path, marker: str) -> bool:
    try:
        return (process / "cmdline").read_bytes().split(b"\0")[:2] == [b"sleep", marker.encode()]
    except OSError:
        return False
