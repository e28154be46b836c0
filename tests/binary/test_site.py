"""Server, agent and commands out of the one file (contract CLI-9)."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import scitq
from scitq.cli.parser import group_help, make_parser
from scitq.commands import table
from tests.lib.onefile import ROOT, Run
from tests.lib.site import Site, end, wait_until
from tests.lib.syscalls import LINUX_3_10, failing

on_site = pytest.mark.xdist_group("one-file-site")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, exe: Path) -> Iterator[Site]:
    """A server and an agent, both of a copy of the file, in an environment with a site's own libraries."""
    folder = tmp_path_factory.mktemp("site")
    copy = folder / "scitq"
    shutil.copy(exe, copy)
    made = Site(folder, [str(copy)], is_started=False)
    made.environment |= {"LD_LIBRARY_PATH": "/opt/site/lib", "VIRTUAL_ENV": "/opt/site/venv"}
    with made:
        made.start_server()
        made.login()
        made.agent(concurrency=2)
        yield made


def test_it_tells_its_version_commit_and_libraries(exe: Path, run: Run) -> None:
    found = json.loads(run([exe, "version", "--verbose", "--json"]).stdout)
    assert found["version"] == scitq.__version__
    assert found["one_file"] == "yes"
    assert len(found["commit"].removesuffix("-dirty")) >= 12 or found["commit"] == "unknown"
    lock = (ROOT / "packaging/requirements.lock").read_text()
    for name in ("apsw", "boto3", "botocore", "docker", "isal", "pyzmq"):
        assert f"\n{name}=={found[name]}" in lock


def test_cli_02_every_help_is_the_same_as_from_source(exe: Path, run: Run) -> None:
    expected = {path: group_help(path) for path in table.GROUPS} | {one.path: make_parser(one).format_help() for one in table.COMMANDS}
    run([exe, "--version"])

    def ask(path: tuple[str, ...]) -> tuple[tuple[str, ...], subprocess.CompletedProcess[str]]:
        return path, run([exe, *path, "--help"])

    with ThreadPoolExecutor(2) as pool:
        for path, answer in pool.map(ask, expected):
            assert (answer.returncode, answer.stderr) == (0, ""), path
            assert "".join(answer.stdout.split()) == "".join(expected[path].split()), path  # the terminal's width breaks lines, and words


@on_site
def test_a_whole_site_runs_a_task_from_it(site: Site) -> None:
    task = site.create("sh -c 'echo hello; ls / >/dev/null && echo done'")
    assert site.wait_status(task, "SF") == "S"
    assert site.output(task) == "hello\ndone\n"


@on_site
def test_cli_09_tasks_see_nothing_of_the_executables_own_environment(site: Site) -> None:
    task = site.create("env")
    assert site.wait_status(task, "SF") == "S"
    seen = site.output(task)
    assert "_internal" not in seen
    assert not [line for line in seen.splitlines() if line.startswith(("SCITQ_ORIG_", "SCITQ_BUNDLE", "SCITQ_EXECUTABLE", "_PYI", "_MEI"))]


@on_site
def test_cli_09_programs_that_it_starts_get_the_users_environment(site: Site, tmp_path: Path) -> None:
    fake = tmp_path / "rclone"
    fake.write_text(f"#!/bin/sh\nenv >{tmp_path}/seen\necho rclone v1.60.1\n")
    fake.chmod(0o755)
    site.run("doctor", env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    seen = (tmp_path / "seen").read_text().splitlines()
    assert "LD_LIBRARY_PATH=/opt/site/lib" in seen
    assert "VIRTUAL_ENV=/opt/site/venv" in seen
    assert not [line for line in seen if line.startswith(("SCITQ_ORIG_", "SCITQ_BUNDLE", "SCITQ_EXECUTABLE", "_PYI", "_MEI"))]


@on_site
def test_daemons_hold_what_they_run_from(site: Site) -> None:
    for folder in (site.home / ".cache/scitq/app").glob("[0-9]*"):
        lock = os.open(folder / ".lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(lock)
        directory = os.open(folder, os.O_RDONLY)  # as systemd-tmpfiles asks
        with pytest.raises(BlockingIOError):
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(directory)


def test_daemons_survive_that_their_files_are_replaced_and_swept(exe: Path, tmp_path: Path) -> None:
    copy = tmp_path / "scitq"
    shutil.copy(exe, copy)
    cache = tmp_path / "cache"
    daemons = Site(tmp_path / "site", [str(copy)], is_started=False)
    daemons.environment["SCITQ_CACHE"] = str(cache)
    daemons.ok("--version")
    (folder,) = (cache / "app").glob("[0-9]*")
    lock = folder / ".lock"
    with daemons:
        # A daemon makes its folder young when it has imported everything.
        before = lock.stat().st_mtime_ns
        daemons.start_server()
        wait_until(lambda: lock.stat().st_mtime_ns > before, "the server's imports")
        before = lock.stat().st_mtime_ns
        daemons.argv = [str(exe)]
        daemons.environment["SCITQ_CACHE"] = str(tmp_path / "clients")
        daemons.login()
        daemons.argv = [str(copy)]
        agent = daemons.agent(env={"SCITQ_CACHE": str(cache)})
        daemons.argv = [str(exe)]
        wait_until(lambda: lock.stat().st_mtime_ns > before, "the agent's imports")

        replacement = tmp_path / "new"
        replacement.write_bytes(b"not a program")
        replacement.rename(copy)
        shutil.rmtree(cache)
        task = daemons.create("echo still here")
        assert daemons.wait_status(task, "SF") == "S"
        assert daemons.output(task) == "still here\n"
        assert daemons.ok("status").status == 0

        assert daemons.server is not None
        for process in (agent, daemons.server):
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def test_it_runs_on_the_kernel_of_an_old_distribution(exe: Path, tmp_path: Path) -> None:
    with Site(tmp_path / "site", failing(LINUX_3_10, exe)) as old:
        old.agent(concurrency=2)
        task = old.create("sh -c 'echo begun; (setsid sleep 600 & echo $! >&2); exit 3'")
        assert old.wait_status(task, "SF") == "F"
        begun, stray = old.output(task).split()
        assert begun == "begun"
        assert not Path(f"/proc/{stray}").exists()
        stopped = old.create("sleep 600")
        old.wait_status(stopped, "R")
        old.ok(["task", "kill", "--id", str(stopped)])
        assert old.wait_status(stopped, "SFK") != "S"


SCRATCH = """
export HOME=/root SCITQ_SERVER=broker.example:7001
/scitq --version
/scitq serve --port 7001 --detach --quiet >/dev/null
SCITQ_TOKEN=$(/scitq login --user admin --password-file /root/.local/share/scitq/admin-password --no-session)
export SCITQ_TOKEN
/scitq agent --concurrency 2 2>/agent.log &
id=$(/scitq task create --container bare --command '/bin/busybox echo hello from scratch' --quiet)
/scitq task wait --id $id --timeout 60s >/dev/null || busybox cat /agent.log /root/.local/share/scitq/server/server.log
/scitq task output --id $id
/scitq stop --quiet
"""


@pytest.mark.docker
@pytest.mark.xdist_group("docker")
def test_it_runs_where_there_is_nothing_but_busybox(exe: Path, tmp_path: Path, docker_service: object) -> None:
    def docker(*words: str) -> str:
        done = subprocess.run(["docker", *words], capture_output=True, text=True, timeout=180, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    container = docker("create", "alpine:latest").strip()
    docker("cp", "--follow-link", f"{container}:/bin/busybox", str(root / "bin/busybox"))
    docker("rm", container)
    assert not (root / "lib").exists()
    tag = f"scitq-scratch-{os.getpid()}"
    subprocess.run(["sh", "-c", f"tar -C {root} -c . | docker import - {tag}"], check=True, capture_output=True, timeout=120)
    try:
        said = docker(
            *("run", "--rm", "--network", "none", "--add-host", "broker.example:127.0.0.1", "--volume", f"{exe}:/scitq:ro", tag),
            *("/bin/busybox", "sh", "-ec", SCRATCH.replace("busybox cat", "/bin/busybox cat")),
        )
    finally:
        docker("rmi", "--force", tag)
    assert said.splitlines()[0] == f"scitq {scitq.__version__}"
    assert said.splitlines()[-1] == "hello from scratch", said


def test_a_server_ends_cleanly_at_a_second_signal_of_the_group(exe: Path, tmp_path: Path) -> None:
    with Site(tmp_path / "site", [str(exe)]) as one:
        assert one.server is not None
        os.killpg(one.server.pid, signal.SIGTERM)
        os.killpg(one.server.pid, signal.SIGTERM)  # not reaped yet: the group is still there
        assert end(one.server) == 0
        one.server = None
