"""Inputs and resources brought from real folders (storages of type local) into a real cache."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import threading
import time

import pytest
from tests.lib.fetching import Worker, content, restart, tar

from scitq.agent import cache_entry, cache_settling
from scitq.agent.steps import fetch
from scitq.errors import CancelledError, DiskFullError, ScitqError, SourceMissingError, StorageError
from scitq.storage.base import Cancel


@pytest.fixture
def worker(tmp_path):
    return Worker(tmp_path)


def test_inputs_and_resources_land_where_the_guide_says(worker):
    worker.put("b/data/a/x", b"1")
    worker.put("b/data/b/x", b"2")
    worker.put("b/one.dat", b"3")
    worker.put("b/ref.tgz", tar(r=b"4"))
    worker.put("b/z.gz", gzip.compress(b"5"))
    folders, prepared = worker.run(
        inputs=["st://b/data/", "st://b/one.dat|mv:in/deep", "st://b/z.gz|gunzip"],
        resources=["st://b/ref.tgz|untar", "st://b/one.dat|mv:m"],
    )
    assert content(folders.input) == {"a/x": b"1", "b/x": b"2", "in/deep/one.dat": b"3", "z": b"5"}
    assert content(prepared.resource_view) == {"r": b"4", "m/one.dat": b"3"}
    assert prepared.downloaded_bytes == sum(
        (worker.source / "b" / name).stat().st_size for name in ("data/a/x", "data/b/x", "one.dat", "one.dat", "ref.tgz", "z.gz")
    )


def test_res_04_without_resources_the_view_is_the_tasks_own_empty_folder(worker):
    folders, prepared = worker.run()
    assert prepared.resource_view == folders.resource
    assert (prepared.downloaded_bytes, content(folders.input), list(folders.resource.iterdir())) == (0, {}, [])


def test_in_02_inputs_are_private_writable_and_the_source_never_changes(worker):
    worker.put("b/x", b"1")
    one, _ = worker.run(inputs=["st://b/x"])
    two, _ = worker.run(inputs=["st://b/x"])
    (one.input / "x").write_bytes(b"changed")
    assert (two.input / "x").read_bytes() == b"1"
    assert (worker.source / "b/x").read_bytes() == b"1"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (one.input, one.input / "x")] == [0o777, 0o666]


def test_res_03_programs_are_executable(worker):
    worker.put("b/run", b"#!/bin/sh\n")
    folders, prepared = worker.run(inputs=["st://b/run"], resources=["st://b/run"])
    assert os.access(folders.input / "run", os.X_OK)
    assert stat.S_IMODE((prepared.resource_view / "run").stat().st_mode) == 0o555


def test_res_05_the_view_is_read_only_and_a_bare_task_holds_no_link_into_the_cache(worker):
    worker.put("b/x", b"reference")
    worker.put("b/y", b"other")
    _, plain = worker.run(resources=["st://b/x", "st://b/y"])
    one, bare = worker.run(resources=["st://b/x", "st://b/y"], container="bare")
    assert content(bare.resource_view) == content(plain.resource_view)
    for path in bare.resource_view.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o444
        assert path.stat().st_nlink == 1
        path.chmod(0o644)
        path.write_bytes(b"hostile")
    fetch.release(one)
    assert content(plain.resource_view) == {"x": b"reference", "y": b"other"}
    _, again = worker.run(resources=["st://b/x", "st://b/y"], container="bare")
    assert content(again.resource_view) == {"x": b"reference", "y": b"other"}
    assert again.downloaded_bytes == 0


def test_res_06_eight_tasks_at_once_make_one_transfer_and_later_ones_none(worker):
    size = 3_000_000
    worker.put("b/big", os.urandom(size))
    results, barrier = [], threading.Barrier(8)

    def task():
        barrier.wait()
        results.append(worker.run(resources=["st://b/big"])[1])

    threads = [threading.Thread(target=task) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({result.resource_view for result in results}) == 1
    assert len(results) == 8
    assert sum(result.downloaded_bytes for result in results) == size
    assert worker.run(resources=["st://b/big"])[1].downloaded_bytes == 0


def test_res_06_when_the_first_is_cancelled_the_others_get_it_and_none_hangs(worker):
    for number in range(300):
        worker.put(f"b/d/{number}", b"x" * 1000)
    started, cancel, results = threading.Event(), Cancel(), []

    def progress(done, total):
        if done:
            started.set()

    def first():
        try:
            worker.run(resources=["st://b/d/"], cancel=cancel, progress=progress)
        except CancelledError as error:
            results.append(error)

    def other():
        results.append(worker.run(resources=["st://b/d/"])[1])

    one = threading.Thread(target=first)
    one.start()
    assert started.wait(30)
    two = threading.Thread(target=other)
    two.start()
    cancel.cancel()
    one.join(30)
    two.join(30)
    assert len(content(next(result for result in results if not isinstance(result, CancelledError)).resource_view)) == 300


def test_res_06_a_failed_download_leaves_nothing_and_the_next_try_is_afresh(worker):
    worker.put("b/x.tgz", tar(a=b"1")[:-12])
    for _ in range(2):
        with pytest.raises(StorageError, match=r"st://b/x.tgz\|untar.*corrupt or truncated"):
            worker.run(resources=["st://b/x.tgz|untar"])
    assert worker.cache.list() == []
    worker.put("b/x.tgz", tar(a=b"1"))
    assert content(worker.run(resources=["st://b/x.tgz|untar"])[1].resource_view) == {"a": b"1"}
    assert list((worker.context.work_dir / "cache" / "staging").iterdir()) == []


def test_res_08_a_changed_source_gives_later_tasks_the_new_content(worker):
    worker.put("b/x", b"old")
    _, old = worker.run(resources=["st://b/x"])
    worker.put("b/x", b"new!")
    _, new = worker.run(resources=["st://b/x"])
    assert (content(old.resource_view), content(new.resource_view)) == ({"x": b"old"}, {"x": b"new!"})


def test_res_09_the_cache_outlives_a_restart_and_is_checked_again(worker, tmp_path):
    worker.put("b/x", b"1")
    worker.put("b/y", b"2")
    worker.run(resources=["st://b/x"])
    worker.run(resources=["st://b/y"])
    cached = next(path for path in (worker.context.work_dir / "cache").rglob("y"))
    cached.chmod(0o644)
    cached.write_bytes(b"damaged")
    (worker.context.work_dir / "cache" / "staging" / "left").mkdir()
    restart(worker)
    assert worker.run(resources=["st://b/x"])[1].downloaded_bytes == 0
    _, again = worker.run(resources=["st://b/y"])
    assert (again.downloaded_bytes, content(again.resource_view)) == (1, {"y": b"2"})
    assert not (worker.context.work_dir / "cache" / "staging" / "left").exists()


def test_res_09_after_a_power_cut_only_what_is_sure_to_be_on_the_disk_is_believed(worker, monkeypatch, tmp_path):
    entries = worker.context.work_dir / "cache" / "entries"
    worker.put("b/x", b"1")
    worker.put("b/t.tgz", tar(**{"a/run": b"#!/bin/sh\n"}))
    uris = ["st://b/x", "st://b/t.tgz|untar"]

    def fetched():
        return [worker.run(resources=[uri])[1].downloaded_bytes > 0 for uri in uris]

    def another_boot(name):
        (tmp_path / name).write_text(name)
        monkeypatch.setattr(cache_entry, "_BOOT", tmp_path / name)
        restart(worker)

    assert fetched() == [True, True]
    restart(worker)
    assert fetched() == [False, False]
    another_boot("second")
    assert fetched() == [True, True]
    monkeypatch.setattr(cache_settling, "DELAY_S", 0.0)
    restart(worker)
    assert fetched() == [False, False]
    deadline_s = time.monotonic() + 60
    while len(list(entries.glob("*/settled"))) < 2 and time.monotonic() < deadline_s:
        time.sleep(0.02)
    another_boot("third")
    assert fetched() == [False, False]


def test_a_restarted_agent_holds_the_resources_of_a_task_that_still_runs(worker):
    worker.put("b/x", b"1")
    worker.put("b/y", b"2")
    for resources in (["st://b/x"], ["st://b/x", "st://b/y|mv:s"]):
        folders, prepared = worker.run(resources=resources)
        restart(worker)
        assert fetch.adopt(folders, worker.context) == prepared.resource_view
        worker.run(resources=["st://b/y"])
        assert worker.cache.clear()["kept"] >= 1
        assert "x" in content(prepared.resource_view)
        fetch.release(folders)
    assert fetch.adopt(worker.folders(), worker.context) is None


def test_res_10_least_recently_used_goes_first_and_never_what_is_in_use(tmp_path):
    worker = Worker(tmp_path, cache_size="250k")
    for name in "abcd":
        worker.put(f"b/{name}", name.encode() * 100_000)
    held, prepared = worker.run(resources=["st://b/a"])
    for name in "bcd":
        fetch.release(worker.run(resources=[f"st://b/{name}"])[0])
    assert [entry["uri"] for entry in worker.cache.list()] == ["st://b/d", "st://b/a"]
    assert content(prepared.resource_view) == {"a": b"a" * 100_000}
    assert sum(entry["bytes"] for entry in worker.cache.list()) <= 250_000
    assert worker.cache.clear() == {"entries": 1, "bytes": 100_000, "kept": 1}
    fetch.release(held)
    assert worker.cache.clear()["kept"] == 0


def test_res_11_the_key_is_uri_plus_actions(worker):
    worker.put("b/x.gz", gzip.compress(b"1"))
    _, prepared = worker.run(resources=["st://b/x.gz", "st://b/x.gz|gunzip"])
    assert content(prepared.resource_view) == {"x.gz": (worker.source / "b/x.gz").read_bytes(), "x": b"1"}


@pytest.mark.parametrize("kind", ["inputs", "resources"])
def test_res_12_in_10_unt_07_collisions_name_both_uris_and_suggest_mv(worker, kind):
    for name in ("b/1/x", "b/2/x", "b/2/x2/y"):
        worker.put(name)
    worker.put("b/t.tgz", tar(x=b"1"))
    worker.put("b/f.tgz", tar(**{"x/deep": b"1"}))
    for pair in (
        ["st://b/1/x", "st://b/2/x"],
        ["st://b/1/x", "st://b/t.tgz|untar"],
        ["st://b/1/x", "st://b/f.tgz|untar"],
        ["st://b/1/x", "st://b/2/x2/y|mv:x"],
    ):
        with pytest.raises(StorageError, match=r"mv:FOLDER") as caught:
            worker.run(**{kind: pair})
        assert all(uri in str(caught.value) for uri in pair)
    worker.run(**{kind: ["st://b/1/x", "st://b/2/x|mv:two"]})


def test_in_10_the_same_uri_twice_is_merged(worker):
    worker.put("b/x", b"12345")
    folders, prepared = worker.run(inputs=["st://b/x", "st://b/x"], resources=["st://b/x|mv:s", "st://b/x|mv:./s/"])
    assert prepared.downloaded_bytes == 10
    assert content(folders.input) == {"x": b"12345"}


def test_mv_06_nothing_goes_through_a_link_made_by_another_archive(worker, tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as opened:
        info = tarfile.TarInfo("sub")
        info.type, info.linkname = tarfile.SYMTYPE, str(tmp_path)
        opened.addfile(info)
    worker.put("b/l.tar", buffer.getvalue())
    worker.put("b/evil")
    for kind in ("inputs", "resources"):
        with pytest.raises(StorageError, match="sub"):
            worker.run(**{kind: ["st://b/l.tar|untar", "st://b/evil|mv:sub"]})
    assert not (tmp_path / "evil").exists()


def test_mv_02_a_file_of_that_name_at_the_root_is_intact(worker):
    worker.put("b/1/x", b"1")
    worker.put("b/2/x", b"2")
    folders, _ = worker.run(inputs=["st://b/1/x", "st://b/2/x|mv:s"])
    assert content(folders.input) == {"x": b"1", "s/x": b"2"}


def test_in_08_what_names_nothing_fails_with_its_uri_and_leaves_nothing(worker):
    worker.put("b/x")
    for uri in ("st://b/absent", "st://b/absent/", "st://b/*.none"):
        folders = worker.folders()
        with pytest.raises(SourceMissingError) as caught:
            worker.run(inputs=["st://b/x", uri], folders=folders)
        assert uri in str(caught.value)
        assert list(folders.input.iterdir()) == []


def test_in_03_five_hundred_inputs(worker):
    for number in range(500):
        worker.put(f"b/{number}", str(number).encode())
    folders, _ = worker.run(inputs=[f"st://b/{number}" for number in range(500)])
    assert content(folders.input) == {str(number): str(number).encode() for number in range(500)}


def test_in_11_odd_names_arrive_unchanged(worker):
    names = [
        "a b",
        "-dash",
        "é",
        "e\u0301",
        "c:o",
        "#h",
        "%20",
        "+&'\"@",
        "new\nline",
        "n" * 255,
        "|bar",
        "x [1].dat",
        "{a,b}",
        "a?b",
        "!n",
        "b\\s",
    ]
    for name in names:
        worker.put(f"b/{name}", name.encode())
    folders, prepared = worker.run(inputs=["st://b/*"], resources=[f"st://b/{name.replace('|', '%7C')}" for name in names])
    assert content(folders.input) == content(prepared.resource_view) == {name: name.encode() for name in names}


def test_in_16_no_room_is_told_before_the_download_and_gives_the_space_back(tmp_path):
    worker = Worker(tmp_path, min_free_disk="9000T")
    worker.put("b/x")
    for kind in ("inputs", "resources"):
        with pytest.raises(DiskFullError, match="min_free_disk"):
            worker.run(**{kind: ["st://b/x"]})


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can be mounted by root only")
def test_in_16_a_full_disk_fails_the_task_and_other_tasks_go_on(tmp_path):
    from scitq.util import proc

    work = tmp_path / "work"
    work.mkdir()
    if proc.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", work], timeout_s=20).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        worker = Worker(tmp_path, min_free_disk="1")
        worker.put("b/z.gz", gzip.compress(bytes(30_000_000)))
        worker.put("b/small")
        for kind in ("inputs", "resources"):
            with pytest.raises(DiskFullError, match="room"):
                worker.run(**{kind: ["st://b/z.gz|gunzip"]})
            worker.run(**{kind: ["st://b/small"]})
        used = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
        assert used < 100_000
    finally:
        proc.run(["umount", work], timeout_s=20)


def test_a_cancelled_task_stops_at_once(worker):
    worker.put("b/x")
    cancel = Cancel()
    cancel.cancel()
    with pytest.raises(CancelledError):
        worker.run(inputs=["st://b/x"], cancel=cancel)


def test_progress_tells_bytes_done_and_to_do(worker):
    worker.put("b/x", b"1" * 1000)
    worker.put("b/y", b"2" * 500)
    seen = []
    worker.run(inputs=["st://b/x"], resources=["st://b/y"], progress=lambda done, total: seen.append((done, total)))
    assert max(seen) == (1500, 1500)


def test_a_task_that_waits_for_anothers_download_is_told_its_progress(worker):
    size = 1_000_000
    for number in range(200):
        worker.put(f"b/d/{number}", b"x" * (size // 200))
    begun, joined, seen, results = threading.Event(), threading.Event(), [], []

    def held(done, total):
        if done > size // 2:
            begun.set()
            joined.wait(60)

    def told(done, total):
        seen.append((done, total))
        if total:
            joined.set()

    one = threading.Thread(target=lambda: results.append(worker.run(resources=["st://b/d/"], progress=held)[1]))
    one.start()
    assert begun.wait(60)
    two = threading.Thread(target=lambda: results.append(worker.run(resources=["st://b/d/"], progress=told)[1]))
    two.start()
    one.join(60)
    two.join(60)
    assert max(seen) == (size, size)
    assert sorted(result.downloaded_bytes for result in results) == [0, size]


def test_unknown_storages_and_bad_settings_are_errors_of_ours(worker):
    with pytest.raises(ScitqError, match="nope"):
        worker.run(inputs=["nope://b/x"])


def test_the_marks_of_completed_results_are_no_inputs(worker):
    for name in ("a", "b", "empty"):
        worker.put(f"{name}/.scitq-complete.json")
    worker.put("a/1")
    worker.put("b/2")
    folders, _ = worker.run(inputs=["st://a/", "st://b/*"])
    assert sorted(content(folders.input)) == ["1", "2"]
    folders, _ = worker.run(inputs=["st://a/.scitq-complete.json"])
    assert sorted(content(folders.input)) == [".scitq-complete.json"]
    with pytest.raises(SourceMissingError, match="nothing but the mark"):
        worker.run(inputs=["st://empty/"])
