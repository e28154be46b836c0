"""Room on the worker's disks: downloads under way count with what they will still write, and nothing is evicted in vain."""

from __future__ import annotations

import gzip
import random
import threading
from contextlib import contextmanager

import pytest
from tests.lib.fetching import Worker, content
from tests.lib.mounts import tmpfs
from tests.lib.webserver import WebServer

from scitq.agent import cache
from scitq.agent.steps import fetch
from scitq.errors import CancelledError, DiskFullError
from scitq.storage.base import Cancel

KINDS = pytest.mark.parametrize("kind", ["inputs", "resources"])


@contextmanager
def half_way(worker, **wanted):
    """A task whose download has come half way, and goes on when the block ends; gives the list that gets its folders."""
    begun, go_on, ended = threading.Event(), threading.Event(), []

    def told(done, total):
        if done:
            begun.set()
            go_on.wait(60)

    def run():
        try:
            ended.append(worker.run(**wanted, progress=told)[0])
        finally:
            begun.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(60)
    try:
        yield ended
    finally:
        go_on.set()
        thread.join(60)


@KINDS
def test_in_16_of_two_downloads_that_fit_only_alone_the_second_is_refused_before_it_starts(tmp_path, kind):
    with tmpfs(tmp_path / "work", "40m"):
        worker = Worker(tmp_path)
        for name in ("one", "two"):
            worker.put(f"b/{name}", name[:1].encode() * (24 << 20))
        worker.put("b/fits", bytes(4 << 20))
        with half_way(worker, **{kind: ["st://b/one"]}) as ended:
            with pytest.raises(DiskFullError, match="promised to other downloads"):
                worker.run(**{kind: ["st://b/two"]})
            fits, _ = worker.run(**{kind: ["st://b/fits"]})
            fetch.release(fits)
        assert len(ended) == 1
        with pytest.raises(DiskFullError, match="are free"):
            worker.run(inputs=["st://b/two"])
        fetch.release(ended[0])
        fetch._empty(ended[0].input)
        folders, _ = worker.run(inputs=["st://b/two"])  # nothing is promised any more, and the cache makes room
        assert content(folders.input)["two"] == b"t" * (24 << 20)


def test_in_16_what_failed_or_was_cancelled_keeps_no_room(tmp_path):
    with tmpfs(tmp_path / "work", "40m"):
        worker = Worker(tmp_path)
        worker.put("b/one.gz", gzip.compress(bytes(60 << 20)))
        worker.put("b/two", bytes(24 << 20))
        cancel = Cancel()
        with pytest.raises(CancelledError):
            worker.run(inputs=["st://b/two"], cancel=cancel, progress=lambda done, _total: done and cancel.cancel())
        for _ in range(2):
            with pytest.raises(DiskFullError):
                worker.run(inputs=["st://b/one.gz|gunzip"], resources=["st://b/one.gz|gunzip"])
        folders, _ = worker.run(inputs=["st://b/two"])
        assert content(folders.input)["two"] == bytes(24 << 20)


def test_res_14_a_shortage_on_the_tasks_disk_leaves_a_cache_on_another_disk_alone(tmp_path):
    worker = Worker(tmp_path)
    worker.put("b/kept", b"1" * 1000)
    worker.put("b/large", bytes(20 << 20))
    worker.put("b/z.gz", gzip.compress(bytes(20 << 20)))
    with tmpfs(worker.context.work_dir / "tasks", "8m"):
        fetch.release(worker.run(resources=["st://b/kept"])[0])
        for uri in ("st://b/large", "st://b/z.gz|gunzip"):
            with pytest.raises(DiskFullError):
                worker.run(inputs=[uri])
        assert [entry["uri"] for entry in worker.cache.list()] == ["st://b/kept"]


def test_res_05_the_copy_that_a_bare_task_gets_leaves_what_must_stay_free(tmp_path):
    with tmpfs(tmp_path / "work", "40m") as disk:
        worker = Worker(tmp_path)
        worker.put("b/large", b"1" * (24 << 20))
        with pytest.raises(DiskFullError, match="are needed"):
            worker.run(resources=["st://b/large"], container="bare")
        assert list((disk / "cache" / "staging").iterdir()) == []
        folders, prepared = worker.run(resources=["st://b/large"])  # which needs no copy, and finds it in the cache
        assert prepared.downloaded_bytes == 0
        fetch.release(folders)


@KINDS
def test_in_15_in_16_what_does_not_tell_its_size_stops_where_the_disk_must_stay_free(tmp_path, kind):
    with WebServer.running() as web, tmpfs(tmp_path / "work", "90m") as disk:
        web.files["/x"], web.has_ranges, web.tells_length = bytes(60 << 20), False, False
        worker = Worker(tmp_path, min_free_disk="60M")
        with pytest.raises(DiskFullError, match=f"http://{web.address}/x: no room"):
            worker.run(**{kind: [f"http://{web.address}/x"]})
        assert not [path for path in disk.rglob("*") if path.is_file()]
        worker.context.settings["min_free_disk"] = "1M"
        folders, prepared = worker.run(**{kind: [f"http://{web.address}/x"]})
        assert content(folders.input if kind == "inputs" else prepared.resource_view) == {"x": bytes(60 << 20)}


def test_a_task_that_waits_for_anothers_view_is_cancelled_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_POLL_S", 1000.0)
    worker = Worker(tmp_path)
    worker.put("b/x")
    folders, prepared = worker.run(resources=["st://b/x|mv:m"])
    name = prepared.resource_view.name
    fetch.release(folders)
    worker.cache._making_views.add(name)  # as while another task makes it, which takes long where it is a copy
    cancel, ended = Cancel(), []

    def run():
        with pytest.raises(CancelledError):
            worker.run(resources=["st://b/x|mv:m"], cancel=cancel)
        ended.append(True)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    cancel.cancel()
    thread.join(60)
    assert ended == [True]


def test_res_10_what_is_in_use_is_never_evicted_however_many_come_and_go(tmp_path):
    worker = Worker(tmp_path, cache_size="70k")
    names, errors, numbering = "abcdef", [], threading.Lock()
    for name in names:
        worker.put(f"b/{name}", name.encode() * 30_000)

    def tasks(seed):
        dice = random.Random(seed)
        try:
            for _ in range(12):
                wanted = dice.sample(names, dice.randint(1, 3))
                with numbering:
                    folders = worker.folders()
                _, prepared = worker.run(
                    resources=[f"st://b/{name}" for name in wanted], container=dice.choice(["alpine", "bare"]), folders=folders
                )
                for _ in range(3):
                    assert content(prepared.resource_view) == {name: name.encode() * 30_000 for name in wanted}
                fetch.release(folders)
        except BaseException as error:  # noqa: BLE001 - told to the test
            errors.append(error)

    threads = [threading.Thread(target=tasks, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    assert sum(entry["bytes"] for entry in worker.cache.list()) <= 70_000
    assert not any(entry["tasks"] for entry in worker.cache.list())
    staging = worker.context.work_dir / "cache" / "staging"
    assert not list(staging.iterdir())
