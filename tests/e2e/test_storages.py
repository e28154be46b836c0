"""One scenario over every kind of storage: inputs, a folder, a pattern, an archive, results, and all of `scitq file` (sections 4 to 8)."""

from __future__ import annotations

import io
import os
import sys
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lib.site import Site

from scitq.storage.registry import Storages

KINDS = ["s3", "azurite", "gcs", "webdav"]
LONG = "l" * 250


@pytest.fixture(scope="module")
def site(tmp_path_factory, scitq_argv, s3_service, azurite_service, gcs_service, webdav_service) -> Iterator[Site]:
    """One server and one agent that know a storage of every kind, named as users name them."""
    services = {"s3": s3_service, "azurite": azurite_service, "gcs": gcs_service, "webdav": webdav_service}
    entries = {name(kind): service.rclone() for kind, service in services.items()}
    with pytest.MonkeyPatch.context() as patch:
        # The one file finds rclone on PATH; this Python's packages bring it.
        patch.setenv("PATH", f"{os.environ['PATH']}:{Path(sys.executable).parent}")
        with Site(tmp_path_factory.mktemp("storages"), scitq_argv, rclone=entries, worker={"min_free_disk": "10M"}) as made:
            made.agent(concurrency=4)
            yield made


@pytest.fixture(params=KINDS)
def base(request, azurite_service, gcs_service) -> str:
    """A folder of this test's own in a storage of the kind."""
    bucket = "ready" if request.param == "s3" else f"b-{uuid.uuid4().hex[:10]}"
    if request.param in {"azurite", "gcs"}:
        settings = (azurite_service if request.param == "azurite" else gcs_service).rclone()
        storages = Storages({"made": settings})
        storages.get("made").make_bucket(bucket)
        storages.close()
    return f"{name(request.param)}://{bucket}/{uuid.uuid4().hex[:8]}"


def name(kind: str) -> str:
    return f"My-{kind}_1.x"


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_whole_way_of_data_through_a_storage(site, base, tmp_path):
    sent = {"one.dat": b"1", "d/a/x": b"2", "d/b/x": b"3", "p/1.dat": b"4", "p/2.dat": b"5", "p/3.dat.gz": b"6", "p/sub/4.dat": b"7"}
    for path, data in sent.items():
        (tmp_path / "up" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "up" / path).write_bytes(data)
    with tarfile.open(tmp_path / "up/ref.tgz", "w:gz") as opened:
        info = tarfile.TarInfo("ref/run")
        info.size, info.mode = len(b"#!/bin/sh\necho ran\n"), 0o755
        opened.addfile(info, io.BytesIO(b"#!/bin/sh\necho ran\n"))

    site.ok(["file", "copy", "up/", f"{base}/in/"], cwd=tmp_path)
    rows = {row["path"]: row["size"] for row in site.ok(["file", "list", f"{base}/in/", "--recursive", "--json"]).json}
    assert rows == {path: len(data) for path, data in content(tmp_path / "up").items()}
    assert site.ok(["file", "list", f"{base}/in/p/*.dat", "--quiet"]).out == f"{base}/in/p/1.dat\n{base}/in/p/2.dat\n"

    command = (
        "set -e; cd $INPUT; find . -type f | sort | xargs cat; $RESOURCE/ref/run; echo r > $OUTPUT/r; mkdir -p $OUTPUT/.d/e; "
        f'printf z > "$OUTPUT/.d/e/x [1] é&\'#%20+.dat"; : > $OUTPUT/empty; printf l > $OUTPUT/{LONG}'
    )
    flags = ["--input", f"{base}/in/one.dat", "--input", f"{base}/in/d/", "--input", f"{base}/in/p/*.dat|mv:pattern"]
    flags += ["--resource", f"{base}/in/ref.tgz|untar", "--output", f"{base}/out", "--publish", f"{base}/published/"]
    task = site.create(command, ["--shell", "sh", *flags])
    assert site.wait_status(task, "SF") == "S", site.show(task)
    assert site.output(task) == "23145ran\n"  # a/x, b/x, one.dat, pattern/1.dat, pattern/2.dat
    results = {"r": b"r\n", ".d/e/x [1] é&'#%20+.dat": b"z", "empty": b"", LONG: b"l"}
    for folder in ("out", "published"):
        site.ok(["file", "copy", f"{base}/{folder}/", f"back-{folder}"], cwd=tmp_path)
        assert content(tmp_path / f"back-{folder}") == results

    site.ok(["file", "copy", f"{base}/out/", f"{base}/copied/"])
    site.ok(["file", "copy", f"{base}/copied/r", "single"], cwd=tmp_path)
    assert (tmp_path / "single").read_bytes() == b"r\n"
    worker = site.workers()[0]["id"]
    checked = site.ok(["file", "check", f"{base}/copied/", "--worker-id", str(worker), "--json"]).json
    assert [(row["worker_id"], row["is_reachable"], row["files"]) for row in checked] == [(None, True, 4), (worker, True, 4)]
    assert site.ok(["file", "delete", f"{base}/copied/r", "--json"]).json == {"deleted": 1}
    site.fails(["file", "copy", f"{base}/copied/r", "gone"], 5, cwd=tmp_path)
    assert not (tmp_path / "gone").exists()
    assert site.ok(["file", "delete", f"{base}/copied", "--recursive", "--json"]).json == {"deleted": 3}

    task = site.create("true", ["--input", f"{base}/absent"])
    site.wait_status(task, "F")
    assert f"{base}/absent" in site.show(task)["row"]["reason"]
