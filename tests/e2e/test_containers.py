"""Tasks in containers, by the real command (contract CRE-4, CRE-9 to CRE-14, OUT-3, LOG-6)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lib.services import DockerService
from tests.lib.site import Site, wait_until

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, scitq_argv: list[str], docker_service: DockerService) -> Iterator[Site]:
    assert docker_service.images
    folder = tmp_path_factory.mktemp("containers")
    (folder / "store").mkdir()
    with Site(folder / "site", scitq_argv, rclone={"store": {"type": "local", "root": str(folder / "store")}}) as made:
        made.agent(concurrency=3)
        yield made


@pytest.fixture(scope="module")
def odd_image(docker_service: DockerService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image with ENTRYPOINT, ENV, WORKDIR and USER."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "Dockerfile").write_text(
        'FROM alpine\nENV COLOUR=blue\nWORKDIR /somewhere\nUSER 1000:1000\nENTRYPOINT ["/bin/busybox", "echo", "said:"]\n'
    )
    name = "scitq-test-odd:1"
    subprocess.run(["docker", "build", "-q", "-t", name, str(folder)], check=True, capture_output=True, env=None)
    yield name
    docker_service.command("rmi", "-f", name)


def run(site: Site, command: str, *more: str, image: str = "alpine", status: str = "S") -> str:
    """Create a task in a container; its output once it ended in `status`."""
    task = site.ok(["task", "create", "--container", image, "--command", command, *more]).id
    site.wait_status(task, "SFX", deadline_s=120)
    shown = site.show(task)
    assert shown["row"]["status"] == status, (shown, site.output(task))
    return site.output(task)


def last(site: Site) -> dict[str, object]:
    row: dict[str, object] = site.tasks("--limit 1")[0]
    return row


def ours(site: Site, docker: DockerService) -> list[str]:
    """Containers that the site's agent made; others may run theirs on the same engine."""
    uid = (site.folder / "work0" / "agent.uid").read_text().strip()
    return docker.command("ps", "-aq", "--filter", f"label=scitq.agent={uid}", "--filter", "label=scitq.task").split()


def test_cre_04_the_arguments_go_to_the_entrypoint_and_env_workdir_and_user_hold(site: Site, odd_image: str) -> None:
    assert run(site, "one 'two  three' $HOME *", image=odd_image) == "said: one two  three $HOME *\n"
    shown = run(site, "-c 'echo $COLOUR; pwd; id -u'", "--entrypoint", "/bin/sh", image=odd_image)
    assert shown == "blue\n/somewhere\n1000\n"


@pytest.mark.parametrize(
    ("shell", "command", "said"),
    [
        ("bash", "a=(x y); echo ${a[1]}", "y\n"),
        ("bash -euo pipefail", "echo a; echo b | cat", "a\nb\n"),
        ("perl", 'print "a" x 3, "\\n";', "aaa\n"),
        ("/bin/sh", "echo $((6*7))", "42\n"),
        ("python3 -u", "import sys\nprint(sys.argv[1:])", "[]\n"),
    ],
)
def test_cre_09_shells(site: Site, shell: str, command: str, said: str) -> None:
    assert run(site, command, "--shell", shell, image="python:3.12") == said


def test_cre_09_a_shell_that_the_image_lacks_is_named(site: Site) -> None:
    said = run(site, "echo x", "--shell", "zsh", status="F")
    assert "zsh" in str(last(site)["reason"]) + said
    assert run(site, "false; echo not reached", "--shell", "bash -e", image="python:3.12", status="F") == ""


def test_cre_10_a_command_of_a_megabyte_in_a_container(site: Site, tmp_path: Path) -> None:
    line = {"container": "alpine", "shell": "sh", "command": "# " + "x" * (1 << 20) + "\necho end\n"}
    (tmp_path / "tasks.jsonl").write_text(json.dumps(line) + "\n")
    task = site.ok(["task", "create", "--from-file", str(tmp_path / "tasks.jsonl")]).ids[0]
    site.wait_status(task, "S")
    assert site.output(task) == "end\n"


def test_cre_11_statuses_are_kept_and_explained(site: Site) -> None:
    run(site, "exit 7", "--shell", "sh", status="F")
    assert last(site)["exit_status"] == 7
    run(site, "no-such-program", status="F")
    assert last(site)["exit_status"] in {None, 127}
    assert "no-such-program" in str(last(site)["reason"]) + site.output(int(str(last(site)["id"])))
    run(site, "/etc/passwd", status="F")
    assert "not executable" in str(last(site)["reason"])
    task = site.create("sleep 300", container="alpine")
    site.wait_status(task, "R")
    site.ok(f"task kill --id {task}")
    site.wait_status(task, "F")
    assert "killed by admin" in site.show(task)["row"]["reason"]


def test_cre_11_out_of_memory_is_told_from_being_killed(site: Site) -> None:
    run(site, "x = 'y' * (200 << 20); print(len(x))", "--shell", "python", "--mem", "0.05", image="python:3.12", status="F")
    assert "memory" in str(last(site)["reason"])


def test_what_is_asked_for_is_enforced_and_shown_to_the_task(site: Site) -> None:
    said = run(site, "echo $CPU $THREADS $MEM; cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true",
               "--shell", "sh", "--cpus", "1", "--mem", "0.25")  # fmt: skip
    assert said.split()[0] == "1"
    assert str(1 << 28) in said


def test_cre_12_an_image_that_exists_nowhere_fails_with_the_registrys_words(site: Site) -> None:
    said = run(site, "true", image="localhost:1/no/such:image", status="F")
    assert "localhost:1/no/such" in said
    assert last(site)["reason"]


def test_cre_14_empty_stdin_no_terminal_no_host_environment_and_nothing_left(site: Site, docker_service: DockerService) -> None:
    said = run(site, "cat; if tty -s; then echo terminal; fi; env; sleep 400 & echo done", "--shell", "sh")
    assert "terminal" not in said
    assert said.endswith("done\n")
    for secret in ("SCITQ_TOKEN", "SCITQ_SERVER", str(site.home)):
        assert secret not in said
    wait_until(lambda: not ours(site, docker_service), "the containers removed")


def test_out_03_output_is_uploaded_after_failure_and_kill(site: Site, tmp_path_factory: pytest.TempPathFactory) -> None:
    run(site, "echo partial > /output/part.txt; exit 3", "--shell", "sh", "--output", "store://b/failed/", status="F")
    assert site.ok("file list store://b/failed/ --json").json[0]["size"] == 8
    task = site.ok(
        [
            "task",
            "create",
            "--container",
            "alpine",
            "--shell",
            "sh",
            "--command",
            "echo x > /output/y; echo ok; sleep 300",
            "--output",
            "store://b/k",
        ]
    ).id
    wait_until(lambda: "ok" in site.ok(f"task output --id {task}").out, "the first word")
    site.ok(f"task kill --id {task}")
    site.wait_status(task, "F")
    assert len(site.ok("file list store://b/k/ --json").json) == 1


def test_a_time_limit_ends_the_container(site: Site, docker_service: DockerService) -> None:
    run(site, "sleep 300", "--time-limit", "1s", status="F")
    assert last(site)["reason"] == "time limit"
    wait_until(lambda: not ours(site, docker_service), "the containers removed")


def test_a_frozen_container_goes_on(site: Site) -> None:
    task = site.create("i=0; while [ $i -lt 20 ]; do i=$((i+1)); sleep 0.1; done; echo end", "--shell sh", container="alpine")
    site.wait_status(task, "R")
    site.ok(f"task suspend --id {task}")
    site.wait_status(task, "Z")
    site.ok(f"task resume --id {task}")
    site.wait_status(task, "S")
    assert site.output(task) == "end\n"


def test_srv_03_containers_are_adopted_by_the_next_agent(tmp_path: Path, scitq_argv: list[str], docker_service: DockerService) -> None:
    with Site(tmp_path / "site", scitq_argv) as site:
        agent = site.agent()
        task = site.create("echo before; for i in 1 2 3 4 5 6 7 8; do sleep 0.5; done; echo after", "--shell sh", container="alpine")
        wait_until(lambda: "before" in site.ok(f"task output --id {task}").out, "the first line")
        agent.kill()
        agent.wait()
        with (site.folder / "agent0.log").open("ab") as log:
            words = f"agent --config {site.config} --work-dir {site.folder}/work0 --name agent0"
            site.agents[0] = site.start(words, stdout=log, stderr=log, start_new_session=True)
        site.wait_status(task, "S")
        assert site.output(task) == "before\nafter\n"
        assert site.show(task)["row"]["attempt"] == 1
    assert docker_service.images


def test_what_a_container_used_is_kept(site: Site) -> None:
    run(site, "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; sleep 0.5", "--shell", "sh")
    use = site.show(int(str(last(site)["id"])))["use"]
    assert use["cpu_s"] > 0
    assert use["peak_memory_bytes"] > 0
