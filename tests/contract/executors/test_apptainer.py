"""What apptainer has besides the common suite: its images, and how they are started (contract CRE-4, CRE-6, CRE-12; docs/agent.md)."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lib import services
from tests.lib.apptainer import archive, converted
from tests.lib.mounts import tmpfs
from tests.lib.rig import Rig, keeper
from tests.lib.site import wait_until

from scitq.agent.executors.apptainer import ApptainerExecutor
from scitq.agent.executors.base import ImageError
from scitq.errors import CancelledError
from scitq.storage.base import Cancel

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("apptainer")]

# Writes down each call, and waits before a pull while the file `hold` is there.
WATCHED = """#!/bin/sh
here=$(dirname "$0")
echo "$@" >>"$here/calls"
while test "$2" = pull -a -e "$here/hold"; do sleep 0.05; done
exec {real} "$@"
"""


class Machine:
    """Folders of one test: a watched apptainer on PATH, and `images`, which executors share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = folder / "images"
        self.bin = folder / "bin"
        self.bin.mkdir()
        (self.bin / "apptainer").write_text(WATCHED.format(real=Path(services.service("apptainer").folder) / "apptainer"))
        (self.bin / "apptainer").chmod(0o755)

    def executor(self) -> ApptainerExecutor:
        """One without tasks: images alone need neither keeper nor loop."""
        return ApptainerExecutor(self.images, self.folder, None, None)  # type: ignore[arg-type] # tasks' parts

    def pulls(self) -> int:
        calls = self.bin / "calls"
        return sum(" pull " in line for line in calls.read_text().splitlines()) if calls.exists() else 0

    def left(self) -> list[str]:
        """What lies among the images besides images and their locks."""
        return [file.name for file in self.images.iterdir() if file.suffix not in {".sif", ".lock"} or file.name.startswith(".")]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}{os.pathsep}{os.environ['PATH']}")
    return made


@pytest.fixture(scope="module")
def pushed(docker_service, registry_service) -> str:
    return docker_service.push(registry_service, f"apptainer/{uuid.uuid4().hex[:8]}:1")


def test_cre_12_an_image_is_pulled_once_for_many_tasks_of_several_agents(machine: Machine, pushed: str) -> None:
    """The registry on this machine speaks http, as Docker allows it for such addresses too."""
    (machine.bin / "hold").touch()
    executors = [machine.executor() for _ in range(2)]
    threads = [threading.Thread(target=executor.prepare, args=(pushed, {}, Cancel())) for executor in executors * 3]
    for thread in threads:
        thread.start()
    wait_until(machine.pulls, "the first pull")
    (machine.bin / "hold").unlink()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert machine.pulls() == 1
    assert executors[0].image_file(pushed).stat().st_size > 100_000
    assert machine.left() == []


def test_cre_12_an_image_that_exists_nowhere_fails_in_the_registrys_words(machine: Machine, registry_service) -> None:
    name = f"{registry_service.address}/nosuch/image:1"
    with pytest.raises(ImageError, match=r"nosuch/image.*manifest unknown"):
        machine.executor().prepare(name, {}, Cancel())
    assert machine.left() == []
    with pytest.raises(ImageError, match="there is no such file on this worker"):
        machine.executor().prepare("/nosuch/image.sif", {}, Cancel())


def test_cre_12_private_registries(machine: Machine, docker_service, registry_service) -> None:
    name = docker_service.push(registry_service, f"private/{uuid.uuid4().hex[:8]}:1", private=True)
    with pytest.raises(ImageError, match=r"(?i)auth"):
        machine.executor().prepare(name, {}, Cancel())
    account = {"username": registry_service.user, "password": registry_service.password}
    machine.executor().prepare(name, {registry_service.private: account}, Cancel())
    assert machine.executor().image_file(name).exists()
    assert registry_service.password not in (machine.bin / "calls").read_text()


def test_a_cancelled_pull_leaves_nothing_and_the_next_one_works(machine: Machine, pushed: str) -> None:
    (machine.bin / "hold").touch()
    cancel = Cancel()
    raised: list[BaseException] = []

    def prepare() -> None:
        try:
            machine.executor().prepare(pushed, {}, cancel)
        except CancelledError as error:
            raised.append(error)

    thread = threading.Thread(target=prepare)
    thread.start()
    wait_until(machine.pulls, "the pull")
    cancel.cancel()
    thread.join(60)
    assert len(raised) == 1
    assert machine.left() == []
    (machine.bin / "hold").unlink()
    machine.executor().prepare(pushed, {}, Cancel())


_AGENT = """
import sys
from pathlib import Path
from scitq.agent.executors.apptainer import ApptainerExecutor
from scitq.storage.base import Cancel
ApptainerExecutor(Path(sys.argv[1]), Path(sys.argv[1]), None, None).prepare(sys.argv[2], {}, Cancel())
"""


def test_the_pull_of_a_killed_agent_ends_with_it_and_is_done_anew(machine: Machine, pushed: str) -> None:
    (machine.bin / "hold").touch()
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    with subprocess.Popen([sys.executable, "-c", _AGENT, str(machine.images), pushed], env=environment) as agent:
        wait_until(machine.pulls, "the pull")
        (half,) = machine.left()
        agent.kill()
    wait_until(lambda: not _mention(half), "the end of the pull")
    (machine.bin / "hold").unlink()
    machine.executor().prepare(pushed, {}, Cancel())
    assert machine.pulls() == 2
    assert machine.left() == []


def test_a_disk_that_is_full_is_named_and_nothing_is_left(machine: Machine, docker_service, registry_service) -> None:
    image = docker_service.push(registry_service, f"large/{uuid.uuid4().hex[:8]}:1", source="python:3.12")
    with tmpfs(machine.images, "20m"):
        with pytest.raises(ImageError, match="no space left on device"):
            machine.executor().prepare(image, {}, Cancel())
        assert [file.suffix for file in machine.images.iterdir()] == [".lock"]


def test_an_image_that_was_spoilt_is_pulled_again(machine: Machine, pushed: str) -> None:
    machine.executor().prepare(pushed, {}, Cancel())
    file = machine.executor().image_file(pushed)
    size = file.stat().st_size
    file.write_bytes(b"")
    machine.executor().prepare(pushed, {}, Cancel())
    assert file.stat().st_size == size
    assert machine.pulls() == 2


def test_an_apptainer_that_does_not_answer_is_as_good_as_none(machine: Machine) -> None:
    from scitq.errors import UnavailableError

    (machine.bin / "apptainer").write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    with pytest.raises(UnavailableError, match="broken"):
        machine.executor()


# --- how an image is started ------------------------------------------------------------------------------------------


class Images:
    """Images with an entry point."""

    def __init__(self, folder: Path, docker: services.DockerService) -> None:
        self.alpine = converted(folder, docker)
        tag = f"scitq-entry-{uuid.uuid4().hex[:8]}"
        entry = '["/bin/sh", "-c", "pwd; echo $FROM_IMAGE; for word; do echo \\"<$word>\\"; done", "name"]'
        docker.derived(tag, [f"ENTRYPOINT {entry}", 'CMD ["default"]', "WORKDIR /var/tmp", "ENV FROM_IMAGE=kept"])
        bare = f"scitq-no-shell-{uuid.uuid4().hex[:8]}"
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            tar.add("/bin/busybox", "say/echo")
        docker.command("import", "--change", 'ENTRYPOINT ["/say/echo", "said:"]', "-", bare, data=buffer.getvalue())
        try:
            self.entry = converted(folder, docker, tag)
            self.no_shell = converted(folder, docker, bare)
        finally:
            docker.command("rmi", "-f", tag, bare)
        self.own = self._own(folder, archive(folder, docker))

    def _own(self, folder: Path, source: str) -> str:
        """One that has forgotten that it was a Docker image."""
        words = [Path(services.service("apptainer").folder) / "apptainer", "--silent", "build"]
        subprocess.run([*words, "--sandbox", folder / "box", source], check=True, timeout=120)
        (folder / "box/.singularity.d/runscript").write_text('#!/bin/sh\necho own "$@"\n')
        subprocess.run([*words, folder / "own.sif", folder / "box"], check=True, timeout=120)
        return str(folder / "own.sif")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, docker_service) -> Images:
    return Images(tmp_path_factory.mktemp("sif"), docker_service)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("apptainer")
    with pytest.MonkeyPatch.context() as changes, keeper(folder):
        changes.setenv("PATH", services.service("apptainer").path())
        rig = Rig(folder, lambda rig: ApptainerExecutor(folder / "images", folder, rig.bare, rig))
        yield rig
        for key in list(rig.ends):
            rig.call(lambda key=key: rig.executor.release(key))
        rig.close()


ODD = r"""'a b' '$HOME' "it's" '"q"' '`id`' 'back\slash' '' '*'"""
AS_GIVEN = ["a b", "$HOME", "it's", '"q"', "`id`", "back\\slash", "", "*"]


def test_cre_04_06_the_entry_point_gets_the_words_as_they_are_and_env_and_workdir_hold(rig: Rig, images: Images) -> None:
    key = rig.start(1, ODD, container=images.entry)
    assert rig.end(key).status == 0
    assert rig.streams(key)[1].decode().splitlines() == ["/var/tmp", "kept", *(f"<{word}>" for word in AS_GIVEN)]


def test_another_entry_point_takes_the_place_of_the_images(rig: Rig, images: Images) -> None:
    key = rig.start(2, "one 'two three'", container=images.entry, entrypoint="echo -n")
    assert rig.end(key).status == 0
    assert rig.streams(key)[1] == b"one two three"


def test_cre_04_an_image_without_a_shell_has_an_entry_point_all_the_same(rig: Rig, images: Images) -> None:
    key = rig.start(3, "hello '$HOME'", container=images.no_shell)
    assert rig.end(key).status == 0
    assert rig.streams(key)[1] == b"said: hello $HOME\n"


def test_an_image_made_by_apptainer_is_run_by_its_own_script(rig: Rig, images: Images) -> None:
    key = rig.start(4, "'$HOME' b", container=images.own)
    assert rig.end(key).status == 0
    assert rig.streams(key)[1] == b"own $HOME b\n"


def test_values_of_variables_are_taken_as_they_are(rig: Rig, images: Images) -> None:
    value = "$x `id` \"q\" 'p' a,b=c\nsecond line \\"
    key = rig.start(5, 'printf %s "$A"', container=images.alpine, shell="sh", env={"A": value})
    assert rig.end(key).status == 0
    assert rig.streams(key) == {1: value.encode()}


def test_res_05_resources_are_read_only_and_what_is_written_elsewhere_is_gone_afterwards(rig: Rig, images: Images) -> None:
    command = "touch /resource/x 2>/dev/null || echo read-only; echo kept >/output/o; echo t >/tmp/t; echo h >~/h; echo r >/r; cat /r ~/h"
    key = rig.start(6, command, container=images.alpine, shell="sh")
    assert rig.end(key).status == 0
    assert rig.streams(key) == {1: b"read-only\nr\nh\n"}
    assert (rig.folders(6).output / "o").read_text() == "kept\n"
    again = rig.start(7, "cat /r ~/h /tmp/t", container=images.alpine, shell="sh")
    assert rig.end(again).status != 0


def test_cre_14_the_host_is_not_seen(rig: Rig, images: Images) -> None:
    key = rig.start(8, "ps; ls -d /home/* /root/.[a-z]* 2>/dev/null; grep : /proc/net/dev", container=images.alpine, shell="sh")
    assert rig.end(key).status == 0
    head, first, *others, interface = rig.streams(key)[1].decode().splitlines()
    assert head.split()[0] == "PID"
    assert first.split() == ["1", "root", "appinit"]
    assert all("ps; ls -d" in line or line.split()[-1] == "ps" for line in others), others
    assert interface.split()[0] == "lo:"  # the network is `none`


def test_a_task_for_gpus_runs_where_there_are_none_to_show(rig: Rig, images: Images) -> None:
    key = rig.start(9, "echo ran", container=images.alpine, shell="sh", gpus=1)
    assert rig.end(key).status == 0
    assert rig.streams(key) == {1: b"ran\n"}


def test_an_image_that_is_no_image_is_named(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "text.sif").write_text("no image")
    with pytest.raises(ImageError, match=r"text\.sif"):
        rig.executor.prepare(str(tmp_path / "text.sif"), {}, Cancel())


def test_a_kill_leaves_no_process_that_held_the_image(rig: Rig, images: Images) -> None:
    key = rig.start(10, "echo up; sleep 600", container=images.alpine, shell="sh")
    wait_until(lambda: rig.sizes.get(key), "the first line")
    folder = str(rig.folders(10).root)
    assert _mention(folder)
    rig.call(lambda: rig.executor.signal(key, signal.SIGKILL))
    assert rig.end(key).status == 137
    wait_until(lambda: not _mention(images.alpine) and not _mention(folder), "the end of all its processes")


def _mention(words: str) -> list[int]:
    """Processes whose command line or environment has `words` in it."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if words.encode() in (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
