"""A whole worker with `--runtime apptainer`: root's, an ordinary user's (contract SRV-3, CRE-11, CRE-12, CRE-14, OUT-3, RES-5)."""

from __future__ import annotations

import contextlib
import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lib.apptainer import converted
from tests.lib.podman import as_user, can_run, give, needs_to_run_as, open_way, ordinary_user
from tests.lib.services import IN_CI, ApptainerService, DockerService, RegistryService
from tests.lib.site import Site, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("apptainer-agent")]


class Worker:
    """A site with one worker, whose agent is started again after a kill."""

    def __init__(self, site: Site, path: str, folder: Path, image: str, user: str | None, before: list[str]) -> None:
        self.site, self.folder, self.image, self.user = site, folder, image, user
        self.work = folder / "work"
        self._argv = list(site.argv)
        self._words = [*before, *(as_user(user) if user else [])]
        # TMPDIR: not the test's, which is closed to others; PATH comes first to the folder of the real apptainer
        self.environment = {"HOME": str(folder), "SCITQ_CACHE": None, "XDG_CACHE_HOME": None, "XDG_RUNTIME_DIR": None, "TMPDIR": None}
        self.environment |= {"PATH": path}
        folder.mkdir()
        (folder / "token").write_text(site.ok("user token create --worker --name apptainer").out)
        (folder / "token").chmod(0o600)
        if user:
            give(folder, user)
        self.start()

    def start(self, name: str = "apptainer") -> None:
        """Start an agent; `name`: of its worker and folder."""
        work = self.work.with_name("work" if name == "apptainer" else name)
        words = f"agent --token-file {self.folder}/token --work-dir {work} --name {name} --runtime apptainer --concurrency 2"
        self.site.argv = [*self._words, *self._argv]
        try:
            with (self.site.folder / "agent.log").open("ab") as log:
                agent = self.site.start(words, stdout=log, stderr=log, env=self.environment, cwd=self.folder, start_new_session=True)
        finally:
            self.site.argv = self._argv
        self.site.agents[:] = [one for one in self.site.agents if one.poll() is None] + [agent]

    def are_ready(self) -> bool:
        for agent in self.site.agents:
            assert agent.poll() is None, (self.site.folder / "agent.log").read_text()
        return [row["status"] for row in self.site.workers()] == ["ready"] * len(self.site.agents)

    def create(self, command: str, *more: str, container: str = "", shell: str | None = "sh") -> int:
        words = ["task", "create", "--container", container or self.image, "--command", command, *more]
        return self.site.ok([*words, *(["--shell", shell] if shell else [])]).id

    def run(self, command: str, *more: str, status: str, container: str = "", shell: str | None = "sh") -> int:
        """A task that ends in `status`; its number."""
        task = self.create(command, *more, container=container, shell=shell)
        self.site.wait_status(task, "SFX", deadline_s=120)
        shown = self.site.show(task)
        assert shown["row"]["status"] == status, (shown, self.site.output(task))
        return task

    def says(self, task: int, word: str) -> None:
        """Wait until the task has said so."""
        wait_until(lambda: word in self.site.ok(f"task output --id {task}").out, f"{word!r} of task {task}")

    def images(self) -> list[str]:
        return sorted(file.name for file in (self.folder / ".cache/scitq/images").iterdir())


@contextlib.contextmanager
def made(
    folder: Path, argv: list[str], image: str, apptainer: ApptainerService, user: str | None, *, before: list[str] | None = None
) -> Iterator[Worker]:
    """A worker of `user` (None: root). before: words that start its agent."""
    store = folder / "store"
    (store / "b").mkdir(parents=True)
    (store / "b/in.txt").write_text("input\n")
    (store / "b/tool").write_text("#!/bin/sh\necho tool of $1\n")
    if user:
        needs_to_run_as(user, argv)
        give(store, user)
        open_way(Path(apptainer.folder) / "apptainer")
    rclone = {"store": {"type": "local", "root": str(store)}}
    with Site(folder / "site", argv, rclone=rclone) as site:
        worker = Worker(site, apptainer.path(), folder / "agent", image, user, before or [])
        wait_until(worker.are_ready, "the worker")
        yield worker


@pytest.fixture(scope="module")
def image(docker_service: DockerService, registry_service: RegistryService) -> str:
    return docker_service.push(registry_service, f"apptainer-agent/{uuid.uuid4().hex[:8]}:1")


@pytest.fixture(scope="module")
def worker(
    tmp_path_factory: pytest.TempPathFactory, scitq_argv: list[str], image: str, apptainer_service: ApptainerService
) -> Iterator[Worker]:
    with (
        ordinary_user("scitqapptainer") as user,
        made(tmp_path_factory.mktemp("apptainer-user"), scitq_argv, image, apptainer_service, user) as worker,
    ):
        yield worker


@pytest.fixture(scope="module")
def roots(
    tmp_path_factory: pytest.TempPathFactory, scitq_argv: list[str], image: str, apptainer_service: ApptainerService
) -> Iterator[Worker]:
    with made(tmp_path_factory.mktemp("apptainer-root"), scitq_argv, image, apptainer_service, None) as worker:
        yield worker


@pytest.fixture
def closed_fuse(tmp_path: Path) -> list[str]:
    """Words before a command for which /dev/fuse is closed; for others it stays as it is."""
    closed = tmp_path / "closed"
    closed.touch(mode=0o600)
    return ["unshare", "--mount", "sh", "-c", f'mount --bind {closed} /dev/fuse && exec "$@"', "sh"]


@pytest.fixture(params=["worker", "roots"])
def each(request: pytest.FixtureRequest) -> Worker:
    """The user's worker, then root's, for what matters most; the contract suite runs as root besides."""
    found: Worker = request.getfixturevalue(request.param)
    return found


def test_the_worker_tells_its_runtime(worker: Worker) -> None:
    (row,) = worker.site.workers()
    assert row["runtimes"] == ["bare", "apptainer"]
    assert "bare, apptainer" in worker.site.ok("worker show --id 1").out


def test_a_task_with_input_resource_output_variables_and_log(each: Worker) -> None:
    command = "cat; cat /input/in.txt; /resource/tool $WHO; pwd; echo err >&2; touch /resource/x 2>/dev/null || echo read-only; "
    command += "mkdir /output/closed; echo result > /output/closed/file; chmod 600 /output/closed/file; chmod 555 /output/closed"
    task = each.run(
        command, "--input", "store://b/in.txt", "--resource", "store://b/tool", "--output", "store://out/", "--env", "WHO=apptainer",
        status="S",
    )  # fmt: skip
    assert each.site.ok(f"task output --id {task} --stdout").out == "input\ntool of apptainer\n/\nread-only\n"
    assert each.site.ok(f"task output --id {task} --stderr").out == "err\n"
    assert [file.read_text() for file in (each.folder.parent / "store/out").rglob("file")] == ["result\n"]
    wait_until(lambda: not list((each.work / "tasks").iterdir()), "the removal of the task's folder")
    assert [name.rpartition(".")[2] for name in each.images()] == ["lock", "sif"]


def test_cre_11_the_exit_status_and_what_was_written_before_it(worker: Worker) -> None:
    task = worker.run("echo part > /output/part; exit 7", "--output", "store://failed/", status="F")
    assert worker.site.show(task)["row"]["exit_status"] == 7
    assert [file.read_text() for file in (worker.folder.parent / "store/failed").rglob("part")] == ["part\n"]


def test_cre_11_what_a_task_used_and_that_it_used_too_much(worker: Worker) -> None:
    task = worker.run("x=$(head -c 300000000 /dev/zero | tr '\\0' x); sleep 600", "--mem", "0.06", status="F")
    assert "memory" in worker.site.show(task)["row"]["reason"]
    task = worker.run("i=0; while test $i -lt 300000; do i=$((i+1)); done; sleep 1", status="S")
    use = worker.site.show(task)["use"]
    assert use["cpu_s"] > 0.01
    assert use["peak_memory_bytes"] > 10_000


def test_what_is_not_in_the_image_is_named(worker: Worker) -> None:
    task = worker.run("nosuchprogram x", status="F", shell=None)
    assert "nosuchprogram" in worker.site.show(task)["row"]["reason"]
    assert worker.site.show(task)["row"]["exit_status"] is None
    task = worker.run("x", status="F", shell="nosuchshell")
    assert "nosuchshell" in worker.site.show(task)["row"]["reason"]


def test_a_file_is_an_image(worker: Worker, docker_service: DockerService) -> None:
    file = converted(worker.folder.parent / "images of mine", docker_service)
    open_way(Path(file))
    task = worker.run("echo $0", status="S", container=file)
    assert worker.site.output(task) == "/bin/sh\n"


def test_cre_12_an_image_that_is_nowhere_is_named(worker: Worker, registry_service: RegistryService) -> None:
    task = worker.run("true", status="F", container=f"{registry_service.address}/no/such:image")
    assert "manifest unknown" in worker.site.output(task)
    task = worker.run("true", status="F", container="/no/such.sif")
    assert "no such file on this worker" in worker.site.output(task)


def test_cre_14_a_task_is_suspended_resumed_and_cancelled_with_all_that_it_started(each: Worker) -> None:
    site = each.site
    task = each.create("setsid sleep 600 & echo up > /output/up; echo up; sleep 600")
    each.says(task, "up")
    site.ok(f"task suspend --id {task}")
    site.wait_status(task, "Z")
    site.ok(f"task resume --id {task}")
    site.wait_status(task, "R")
    site.ok(f"task cancel --id {task}")
    site.wait_status(task, "F")
    wait_until(lambda: not processes_of(each.work), "the end of all its processes")


def test_a_task_is_stopped_in_its_own_way(worker: Worker) -> None:
    task = worker.create("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done")
    worker.says(task, "up")
    worker.site.ok(f"task stop --id {task}")
    worker.site.wait_status(task, "S")
    assert worker.site.output(task) == "up\nbye\n"


def test_a_time_limit_is_kept(worker: Worker) -> None:
    task = worker.run("sleep 600", "--time-limit", "1s", status="F")
    assert "time limit" in worker.site.show(task)["row"]["reason"]


def test_srv_03_tasks_outlive_a_killed_agent_and_are_adopted(each: Worker) -> None:
    """One goes on and one ends while no agent is there."""
    site = each.site
    tasks = [
        each.create(f"echo before; while test ! -e /output/{gate}; do sleep 0.1; done; echo after; exit {status}")
        for gate, status in (("first", 0), ("second", 3))
    ]
    for task in tasks:
        each.says(task, "before")
    (agent,) = site.agents
    agent.kill()
    agent.wait()
    outputs = [each.work / "tasks" / f"{task}-1" / "output" for task in tasks]
    (outputs[0] / "first").touch()
    wait_until(lambda: not processes_of(outputs[0].parent), "the end of one task")
    each.start()
    site.wait_status(tasks[0], "S")
    assert site.status_of(tasks[1]) == "R"
    (outputs[1] / "second").touch()
    site.wait_status(tasks[1], "F")
    assert [site.output(task) for task in tasks] == ["before\nafter\n"] * 2
    assert site.show(tasks[1])["row"]["exit_status"] == 3


def test_another_agent_of_the_user_finds_the_image_there(worker: Worker) -> None:
    """Last of the module: a second worker takes what the first has no room for."""
    worker.run("true", status="S")
    file = next((worker.folder / ".cache/scitq/images").glob("*.sif"))
    before = file.stat().st_ino
    worker.start("second")
    wait_until(worker.are_ready, "the second worker")
    tasks = [worker.create("echo up; while test ! -e /output/end; do sleep 0.1; done", "--cpus", "0.1") for _ in range(4)]
    for task in tasks:
        worker.says(task, "up")
    assert file.stat().st_ino == before
    assert [name for name in worker.images() if name.endswith(".sif")] == [file.name]
    assert len({worker.site.show(task)["row"]["worker_id"] for task in tasks}) == 2


def doctor(worker: Worker, before: list[str], after: list[str]) -> dict[str, str]:
    """What doctor says of apptainer to the worker's user. before, after: words around those that make it that user's."""
    words = [*before, *(as_user(worker.user) if worker.user else []), *after, *worker.site.argv, "doctor", "--json", "--no-server"]
    environment = {name: value for name, value in (worker.site.environment | worker.environment).items() if value is not None}
    ran = subprocess.run(words, env=environment, cwd=worker.folder, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=120)
    (found,) = [one for one in json.loads(ran.stdout) if one["what"] == "apptainer"]
    return dict(found)


def test_doctor_tells_how_apptainer_works_here_and_what_to_do(
    worker: Worker, closed_fuse: list[str], apptainer_service: ApptainerService
) -> None:
    found = doctor(worker, [], [])
    assert (found["state"], found["detail"]) == (
        "ok",
        f"apptainer version {apptainer_service.version}, user namespaces, images mounted by squashfuse",
    )
    found = doctor(worker, closed_fuse, [])
    assert found["state"] == "warning"
    assert "are unpacked for each task" in found["detail"]
    assert "/dev/fuse" in found["advice"]


def test_doctor_tells_that_there_are_no_user_namespaces(worker: Worker) -> None:
    """The user is put into one in which no more can be made: a limit that nobody else meets."""
    assert worker.user
    if not IN_CI and not can_run(worker.user, [*worker.site.argv, "--version"]):
        pytest.skip("needs a scitq that others may run; give one by --exe")
    limited = ["sh", "-c", 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"', "sh"]
    found = doctor(worker, [], ["unshare", "--user", "--map-current-user", "--keep-caps", *limited])
    assert found["state"] == "warning"
    assert found["detail"].endswith("neither setuid nor user namespaces")
    assert "max_user_namespaces" in found["advice"]


def test_where_nothing_can_be_mounted_images_are_unpacked(
    tmp_path: Path, scitq_argv: list[str], image: str, apptainer_service: ApptainerService, closed_fuse: list[str]
) -> None:
    with (
        ordinary_user("scitqunpacks") as user,
        made(tmp_path / "w", scitq_argv, image, apptainer_service, user, before=closed_fuse) as worker,
    ):
        task = worker.run("test ! -r /dev/fuse; echo ran; id -u >/output/o", status="S")
        assert worker.site.output(task) == "ran\n"
        wait_until(lambda: not list((worker.work / "tasks").iterdir()), "the removal of what was unpacked")


def processes_of(folder: Path) -> list[int]:
    """Processes of tasks in `folder`, by their environment: apptainer names it, and what mounts images inherits that."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and f"APPTAINER_TMPDIR={folder}/".encode() in (entry / "environ").read_bytes().replace(b"\0", b"/\0"):
                found.append(int(entry.name))
    return found
