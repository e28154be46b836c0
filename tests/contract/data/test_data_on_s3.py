"""A worker's data steps on a real S3 server, behind a proxy that counts requests and cuts connections."""

from __future__ import annotations

import os
import threading
import time
import uuid
from contextlib import suppress

import pytest
from botocore.exceptions import ClientError
from tests.lib.proxy import Proxy

from scitq.agent.actions.chain import everything_below
from scitq.agent.folders import DataContext, TaskFolders
from scitq.agent.steps import fetch, ship
from scitq.errors import CancelledError, SourceMissingError, StorageError
from scitq.model.task import TaskSpec
from scitq.protocol.messages.agent import Assignment
from scitq.storage.base import Cancel


@pytest.fixture(scope="module")
def bucket(s3_service):
    return s3_service.new_bucket()


class Worker:
    def __init__(self, root, entry, bucket, prefix, client):
        self.context = DataContext({"s3": entry}, {"min_free_disk": "1M"}, root)
        self.base, self.bucket, self.prefix, self._client = f"s3://{bucket}/{prefix}", bucket, prefix, client
        self.lock, self.number = threading.Lock(), 0

    def put(self, name, data):
        self._client.put_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}", Body=data)

    def stored(self, folder):
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=f"{self.prefix}/{folder}")
        return {entry["Key"].removeprefix(f"{self.prefix}/{folder}"): entry["Size"] for page in pages for entry in page.get("Contents", [])}

    def run(self, cancel=None, **spec):
        with self.lock:
            self.number += 1
            folders = TaskFolders(self.context.work_dir / "tasks" / str(self.number))
        folders.make()
        task = Assignment(task_id=1, attempt=1, spec=TaskSpec(container="alpine", command="true", **spec))
        return folders, fetch.prepare(task, folders, self.context, lambda done, total: None, cancel or Cancel())

    def ship(self, folders, *, succeeded=True, cancel=None, **spec):
        task = Assignment(task_id=1, attempt=1, spec=TaskSpec(container="alpine", command="true", **spec))
        return ship.ship(task, folders, self.context, lambda done, total: None, cancel or Cancel(), succeeded)


@pytest.fixture
def make(tmp_path, s3_service, bucket):
    """A worker behind a proxy of its own."""
    proxies = []

    def made(**options):
        proxy = Proxy(s3_service.endpoint, **options)
        proxies.append(proxy)
        proxy.__enter__()
        entry = s3_service.rclone() | {"endpoint": proxy.url}
        return Worker(tmp_path / f"work-{uuid.uuid4().hex[:8]}", entry, bucket, tmp_path.name, s3_service.client()), proxy

    yield made
    for proxy in proxies:
        proxy.__exit__()


def content(folder):
    return {name: (folder / name).read_bytes() for name in everything_below(folder) if (folder / name).is_file()}


def test_res_06_eight_tasks_at_once_make_one_get_and_eight_later_ones_none(make):
    worker, proxy = make()
    data = os.urandom(2_000_000)
    worker.put("ref/big", data)
    views = []
    threads = [
        threading.Thread(target=lambda: views.append(worker.run(resources=(f"{worker.base}/ref/big",))[1].resource_view)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [content(view) for view in views] == [{"big": data}] * 8
    assert proxy.count("GET", "/ref/big") == 1
    for _ in range(8):
        worker.run(resources=(f"{worker.base}/ref/big",))
    assert proxy.count("GET", "/ref/big") == 1


def test_in_04_in_06_folders_patterns_and_odd_names(make):
    worker, _ = make()
    names = ["1.dat", "sub/2.dat", "1.dat.gz", "x [1].dat", "a?b.dat", "{a,b}.dat", "é +&%20#'.dat", ".h.dat"]
    for name in names:
        worker.put(f"data/{name}", name.encode())
    folders, _ = worker.run(inputs=(f"{worker.base}/data/",))
    assert content(folders.input) == {name: name.encode() for name in names}
    folders, _ = worker.run(inputs=(f"{worker.base}/data/*.dat",))
    assert set(content(folders.input)) == {name for name in names if "/" not in name and name.endswith(".dat")}
    folders, _ = worker.run(inputs=tuple(f"{worker.base}/data/{name}" for name in names if "/" not in name))
    assert set(content(folders.input)) == {name for name in names if "/" not in name}


def test_in_12_hostile_keys_never_land_outside(make):
    worker, _ = make()
    for key in ("h/../../x", "h//abs", "h/C:\\x", "h/..\\y"):
        with suppress(ClientError):
            worker.put(key, b"!")
    folders, _ = worker.run()
    task = Assignment(task_id=1, attempt=1, spec=TaskSpec(container="alpine", command="true", inputs=(f"{worker.base}/h/",)))
    with suppress(StorageError):
        fetch.prepare(task, folders, worker.context, lambda done, total: None, Cancel())
    strangers = [path for path in worker.context.work_dir.rglob("*") if path.is_file() and not path.is_relative_to(folders.input)]
    assert strangers == []


def test_in_14_a_cut_connection_is_mended_and_the_content_is_whole(make):
    worker, proxy = make(cuts=4, cut_after=300_000)
    data = os.urandom(3_000_000)
    worker.put("in/x", data)
    folders, prepared = worker.run(inputs=(f"{worker.base}/in/x",))
    assert content(folders.input) == {"x": data}
    assert (proxy.made_cuts, prepared.downloaded_bytes) == (4, len(data))


@pytest.mark.parametrize("kind", ["inputs", "resources"])
def test_a_source_that_changes_during_its_download_is_said_and_nothing_is_left(make, kind):
    worker, _ = make(cuts=1, cut_after=1_500_000)
    worker.put("x", bytes(3_000_000))
    changed = []

    def progress(done, total):
        if done > 500_000 and not changed:
            changed.append(done)
            worker.put("x", os.urandom(3_000_000))

    folders = TaskFolders(worker.context.work_dir / "tasks" / "changing")
    folders.make()
    task = Assignment(task_id=1, attempt=1, spec=TaskSpec(container="alpine", command="true", **{kind: (f"{worker.base}/x",)}))
    with pytest.raises(StorageError, match=f"{worker.base}/x.*(changed|try again)"):
        fetch.prepare(task, folders, worker.context, progress, Cancel())
    assert content(folders.input) == {}
    assert list((worker.context.work_dir / "cache" / "entries").iterdir()) == []
    fetch.prepare(task, folders, worker.context, progress, Cancel())


def test_in_14_many_small_files(make):
    worker, _ = make()
    folders, _ = worker.run()
    for number in range(4_000):
        path = folders.output / str(number % 10) / str(number)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(str(number).encode())
    shipped = worker.ship(folders, output=f"{worker.base}/many")
    assert shipped.uploaded_bytes == sum(worker.stored("many/").values())
    back, _ = worker.run(inputs=(f"{worker.base}/many/",))
    assert content(back.input) == content(folders.output)


def test_wrong_credentials_and_an_absent_server_are_clear_reasons(make, s3_service):
    worker, _ = make()
    worker.put("x", b"1")
    entry = s3_service.rclone()
    worker.context = DataContext({"s3": entry | {"secret_access_key": "wrong"}}, {"min_free_disk": "1M"}, worker.context.work_dir)
    with pytest.raises(StorageError, match=r"(?i)s3://.*(key|denied|credential|signature|403)"):
        worker.run(inputs=(f"{worker.base}/x",))


def test_in_08_nothing_matched(make):
    worker, _ = make()
    with pytest.raises(SourceMissingError, match=r"\*\.none"):
        worker.run(inputs=(f"{worker.base}/*.none",))


def test_a_task_that_is_cancelled_stops_at_once_and_leaves_nothing_in_the_cache(make):
    worker, _ = make(bytes_s=500_000)
    worker.put("slow", os.urandom(20_000_000))
    cancel = Cancel()
    threading.Timer(0.7, cancel.cancel).start()
    begun = time.monotonic()
    with pytest.raises(CancelledError):
        worker.run(resources=(f"{worker.base}/slow",), cancel=cancel)
    assert time.monotonic() - begun < 20
    deadline = time.monotonic() + 30
    staging = worker.context.work_dir / "cache" / "staging"
    while list(staging.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list(staging.iterdir()) == list((worker.context.work_dir / "cache" / "entries").iterdir()) == []


def test_out_09_one_upload_that_fails_does_not_hide_the_others(make):
    worker, _ = make()
    folders, _ = worker.run()
    (folders.output / "good").write_bytes(b"1")
    deep = folders.output
    for _ in range(5):
        deep = deep / ("d" * 250)
    deep.mkdir(parents=True)
    (deep / "key-over-1024-bytes").write_bytes(b"2")
    with pytest.raises(StorageError, match="1 of the results"):
        worker.ship(folders, output=f"{worker.base}/mixed")
    assert worker.stored("mixed/") == {"good": 1}


def test_skip_if_exists_on_s3(make):
    worker, _ = make()
    folders, _ = worker.run()
    (folders.output / "r").write_bytes(b"result")
    spec = {"output": f"{worker.base}/skip", "skip_if_exists": True}
    task = Assignment(task_id=1, attempt=1, spec=TaskSpec(container="alpine", command="true", **spec))
    assert not ship.is_complete(task, worker.context, Cancel())
    worker.ship(folders, **spec)
    assert ship.is_complete(task, worker.context, Cancel())
    assert set(worker.stored("skip/")) == {"r", ".scitq-complete.json"}
