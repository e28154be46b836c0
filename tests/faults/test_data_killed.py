"""The agent killed in the middle of a download, of an eviction, and while a task uses what is cached: nothing half made is ever used or left."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lib.site import Site, wait_until
from tests.lib.webserver import WebServer

MANY = 1200


@pytest.fixture
def site(tmp_path: Path, scitq_argv: list[str]) -> Iterator[Site]:
    (tmp_path / "disk").mkdir()
    entry = {"type": "local", "root": str(tmp_path / "disk")}
    with Site(tmp_path / "site", scitq_argv, rclone={"st": entry}, worker={"min_free_disk": "1M"}) as made:
        yield made


def put(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / "disk" / "b" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def again(site: Site) -> None:
    """Start the agent once more, in the same work folder."""
    words = f"agent --config {site.config} --work-dir {site.folder}/work0 --concurrency 3 --name agent0"
    with (site.folder / "agent0.log").open("ab") as log:
        site.agents[0] = site.start(words, stdout=log, stderr=log, start_new_session=True)


def done(site: Site, command: str, *more: str) -> str:
    task = site.create(command, ["--shell", "sh", *more])
    assert site.wait_status(task, "SF") == "S", site.show(task)["row"]["reason"]
    return site.output(task)


def test_res_06_res_09_killed_in_the_middle_of_downloads_while_a_task_uses_the_cache(site: Site, tmp_path: Path) -> None:
    agent, work, gate = site.agent(concurrency=3), site.folder / "work0", tmp_path / "gate"
    put(tmp_path, "used/x", b"in use")
    command = f"cat $RESOURCE/x; while [ ! -e {gate} ]; do sleep 0.05; done; cat $RESOURCE/x"
    user = site.create(command, ["--shell", "sh", "--resource", "st://b/used/x"])
    site.wait_status(user, "R")
    with WebServer.running() as web:
        data = bytes(range(256)) * 12_288
        web.files |= {"/in": data, "/res": data}
        web.hold_after = 1 << 20
        flags = ["--input", f"http://{web.address}/in", "--resource", f"http://{web.address}/res"]
        cut = site.create("cat $INPUT/in $RESOURCE/res | wc -c", ["--shell", "sh", *flags])
        site.wait_status(cut, "D")
        wait_until(
            lambda: list((work / "cache/staging").rglob("*.part")) and list((work / "tasks").rglob("input/*.part")), "both downloads"
        )
        agent.kill()
        agent.wait()
        left = set((work / "cache/staging").iterdir())
        assert left
        web.hold_after = None
        web.go_on.set()
        again(site)
        wait_until(lambda: not left & set((work / "cache/staging").iterdir()), "the staging's clean-up")
        assert site.wait_status(cut, "SF") == "S", site.show(cut)["row"]["reason"]  # it never ran, so that it costs no retry
        assert site.output(cut).strip() == str(2 * len(data))
    wait_until(lambda: not list((work / "tasks").glob(f"{cut}-*")), "the tasks' clean-up")
    worker = site.workers()[0]["id"]
    assert site.ok(f"worker cache clear --worker-id {worker} --json").json["kept"] == 1, "the entry in use"
    gate.touch()
    assert site.wait_status(user, "SF") == "S"
    assert site.output(user) == "in use" * 2


def test_res_09_res_10_killed_in_the_middle_of_an_eviction(site: Site, tmp_path: Path) -> None:
    agent, cache = site.agent(concurrency=3), site.folder / "work0" / "cache"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as opened:
        for number in range(MANY):
            info = tarfile.TarInfo(f"d{number % 50}/{number}")
            info.size = 4
            opened.addfile(info, io.BytesIO(b"%04d" % number))
    put(tmp_path, "many.tar", buffer.getvalue())
    count = "find $RESOURCE/ -type f | wc -l"
    assert int(done(site, count, "--resource", "st://b/many.tar|untar")) == MANY
    entry = next((cache / "entries").iterdir())
    wait_until(lambda: site.ok("worker list --json").json[0]["held"] == 0, "the task's end")
    clearing = site.start(f"worker cache clear --worker-id {site.workers()[0]['id']}")
    deadline_s = time.monotonic() + 60
    while entry.exists() and time.monotonic() < deadline_s:  # without a pause: what follows takes milliseconds
        pass
    agent.kill()
    agent.wait()
    clearing.kill()
    clearing.wait()
    again(site)
    assert int(done(site, count, "--resource", "st://b/many.tar|untar")) == MANY
    wait_until(lambda: not list((cache / "staging").iterdir()), "the staging's clean-up")
    assert [path.name for path in (cache / "entries").iterdir()] == [entry.name]
