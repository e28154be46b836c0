"""What tasks find of several resources and inputs together, and on disks of several file systems."""

from __future__ import annotations

import gzip

import pytest
from tests.lib.fetching import Worker, content, tar
from tests.lib.mounts import tmpfs

from scitq.agent.steps import fetch
from scitq.errors import SourceMissingError

BOTH = pytest.mark.parametrize("container", ["alpine", "bare"])


@pytest.fixture
def worker(tmp_path):
    return Worker(tmp_path)


@BOTH
def test_res_07_a_task_sees_its_own_resources_only(worker, container):
    for name in "abc":
        worker.put(f"b/{name}", name.encode())
    wanted = (["a"], ["b", "c"], ["c"], [])
    views = [worker.run(resources=[f"st://b/{name}" for name in names], container=container)[1].resource_view for names in wanted]
    assert [sorted(content(view)) for view in views] == [sorted(names) for names in wanted]


@BOTH
def test_res_13_folders_patterns_and_several_mixed_with_inputs(worker, container):
    for name in ("d/a/x", "d/b/x", "p/1.dat", "p/2.dat", "p/no.gz", "one"):
        worker.put(f"b/{name}", name.encode())
    worker.put("b/t.tgz", tar(t=b"t"))
    uris = ["st://b/d/", "st://b/p/*.dat", "st://b/one", "st://b/t.tgz|untar"]
    expected = {"a/x": b"d/a/x", "b/x": b"d/b/x", "1.dat": b"p/1.dat", "2.dat": b"p/2.dat", "one": b"one", "t": b"t"}
    folders, prepared = worker.run(inputs=uris, resources=uris, container=container)
    assert content(folders.input) == content(prepared.resource_view) == expected


@BOTH
@pytest.mark.parametrize("apart", ["cache", "tasks"])
def test_res_14_cache_and_tasks_may_lie_on_different_file_systems(worker, container, apart):
    worker.put("b/x", b"1" * 10_000)
    worker.put("b/d/y", b"2")
    worker.put("b/t.tgz", tar(run=b"#!/bin/sh\n"))
    worker.put("b/z.gz", gzip.compress(b"3"))
    with tmpfs(worker.context.work_dir / apart, "200m"):
        for _ in range(2):
            folders, prepared = worker.run(
                inputs=["st://b/x", "st://b/z.gz|gunzip|mv:in"],
                resources=["st://b/x", "st://b/d/|mv:sub", "st://b/t.tgz|untar"],
                container=container,
            )
            assert content(folders.input) == {"x": b"1" * 10_000, "in/z": b"3"}
            assert content(prepared.resource_view) == {"x": b"1" * 10_000, "sub/y": b"2", "run": b"#!/bin/sh\n"}
            fetch.release(folders)
        assert worker.cache.clear()["entries"] == 3


def test_in_05_a_folder_without_its_slash_is_the_object_else_the_folder_else_an_error(worker):
    worker.put("b/d/x", b"1")
    worker.put("b/d2", b"2")
    found = {uri: content(worker.run(inputs=[uri])[0].input) for uri in ("st://b/d", "st://b/d2", "st://b", "st://b/")}
    whole = {"d/x": b"1", "d2": b"2"}
    assert found == {"st://b/d": {"x": b"1"}, "st://b/d2": {"d2": b"2"}, "st://b": whole, "st://b/": whole}
    with pytest.raises(SourceMissingError, match="st://b/d3"):
        worker.run(inputs=["st://b/d3"])


@pytest.mark.parametrize("kind", ["inputs", "resources"])
def test_in_09_a_later_try_matches_again(worker, kind):
    def found():
        folders, prepared = worker.run(**{kind: ["st://b/*.dat"]})
        return sorted(content(folders.input if kind == "inputs" else prepared.resource_view))

    with pytest.raises(SourceMissingError):
        found()
    worker.put("b/1.dat")
    assert found() == ["1.dat"]
    worker.put("b/2.dat")
    assert found() == ["1.dat", "2.dat"]


@BOTH
@pytest.mark.parametrize("kind", ["inputs", "resources"])
def test_mv_01_mv_03_uri_03_subfolders_are_made_and_relative_paths_kept(worker, kind, container):
    for name in ("one", "d/a/x", "d/b/x", "p/1.dat", "p/2.dat"):
        worker.put(f"b/{name}", name.encode())
    worker.put("b/t.tgz", tar(**{"in/t": b"t"}))
    worker.put("b/z.gz", gzip.compress(b"z"))
    uris = ["st://b/one|mv:n/e/s", "st://b/d/|mv:f", "st://b/p/*.dat|mv:p", "st://b/t.tgz|untar|mv:u", "st://b/z.gz|mv:g|gunzip"]
    folders, prepared = worker.run(**{kind: uris}, container=container)
    assert content(folders.input if kind == "inputs" else prepared.resource_view) == {
        "n/e/s/one": b"one",
        "f/a/x": b"d/a/x",
        "f/b/x": b"d/b/x",
        "p/1.dat": b"p/1.dat",
        "p/2.dat": b"p/2.dat",
        "u/in/t": b"t",
        "g/z": b"z",
    }
