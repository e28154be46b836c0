"""What is peculiar to the native S3 engine: faults on the way, sums, signed addresses, pages."""

from __future__ import annotations

import os
import resource
import threading
import urllib.error
import urllib.request
import uuid

import pytest
from tests.lib.flaky import FlakyProxy
from tests.lib.webserver import WebServer

from scitq.errors import CancelledError, DiskFullError, SourceMissingError, StorageError, TransientStorageError
from scitq.model.uri import Uri
from scitq.storage import transfer
from scitq.storage.base import Cancel, MultipartStorage
from scitq.storage.registry import Storages
from scitq.storage.resolve import resolve

BUCKET = "ready"


@pytest.fixture
def base():
    return f"{BUCKET}/{uuid.uuid4().hex[:8]}/"


@pytest.fixture
def opened(s3_service):
    made = []

    def open_s3(**changes):
        storages = Storages({"s3": s3_service.rclone() | changes})
        made.append(storages)
        return storages.get("s3")

    yield open_s3
    for storages in made:
        storages.close()


@pytest.fixture
def s3(opened):
    return opened()


@pytest.fixture
def proxy(s3_service):
    with FlakyProxy.running(s3_service.endpoint) as proxy:
        yield proxy


@pytest.fixture
def flaky(opened, proxy, monkeypatch):
    monkeypatch.setattr(transfer, "FIRST_WAIT_S", 0.01)
    return opened(endpoint=f"http://{proxy.address}")


def parts_left(s3_service, base):
    found = s3_service.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    return [upload["Key"] for upload in found if f"{BUCKET}/{upload['Key']}".startswith(base)]


def test_in_14_cut_downloads_go_on_where_they_ended(s3, flaky, proxy, base, tmp_path):
    for name, size, cuts in (("small", 3_000_000, [1_000_000, 700_000]), ("large", 70 << 20, [9_000_000, 500, 20_000_000])):
        (tmp_path / name).write_bytes(os.urandom(1 << 20) * (size >> 20) + b"end")
        s3.upload(tmp_path / name, base + name)
        entry = s3.stat(base + name)
        proxy.cut_down = list(cuts)
        seen = []
        flaky.download(base + name, tmp_path / "got", entry=entry, progress=seen.append)
        assert proxy.cut_down == []
        assert (tmp_path / "got").read_bytes() == (tmp_path / name).read_bytes()
        assert sum(seen) == entry.size
        with flaky.open_read(base + name) as stream:
            proxy.cut_down = [1_000_000]
            assert b"".join(iter(lambda: stream.read(1 << 20), b"")) == (tmp_path / name).read_bytes()


def test_in_14_cut_uploads_are_made_again_and_leave_no_parts(s3_service, s3, flaky, proxy, base, tmp_path):
    for name, size, cuts in (("small", 3_000_000, [1_000_000, 100]), ("large", 70 << 20, [9_000_000, 30_000_000])):
        (tmp_path / name).write_bytes(os.urandom(1 << 20) * (size >> 20) + b"end")
        proxy.cut_up = list(cuts)
        seen = []
        flaky.upload(tmp_path / name, base + name, progress=seen.append)
        assert proxy.cut_up == []
        s3.download(base + name, tmp_path / "got")
        assert (tmp_path / "got").read_bytes() == (tmp_path / name).read_bytes()
        assert sum(seen) == (tmp_path / name).stat().st_size
    proxy.cut_up = [40_000_000] + [1000] * 200
    with pytest.raises(TransientStorageError, match=f"s3://{base}never"):
        flaky.upload(tmp_path / "large", base + "never")
    proxy.cut_up = []
    assert s3.stat(base + "never") is None
    assert parts_left(s3_service, base) == []


def test_in_14_what_was_changed_on_its_way_is_noticed(s3, flaky, proxy, base, tmp_path):
    for name, size in (("small", 200_000), ("large", 40 << 20)):
        (tmp_path / name).write_bytes(os.urandom(size))
        proxy.flip_up = 1
        flaky.upload(tmp_path / name, base + name)
        assert proxy.flip_up == 0
        s3.download(base + name, tmp_path / "got")
        assert (tmp_path / "got").read_bytes() == (tmp_path / name).read_bytes()
        proxy.flip_down = 1
        with pytest.raises(StorageError, match=f"s3://{base}{name}.*(checksum|MD5)"):
            flaky.download(base + name, tmp_path / "bad")
        assert proxy.flip_down == 0
        assert not (tmp_path / "bad").exists()


def test_a_server_without_crc_sums_is_checked_by_md5(s3, s3_service, base, tmp_path):
    content = os.urandom(40 << 20)
    s3_service.client().put_object(Bucket=BUCKET, Key=base.partition("/")[2] + "x", Body=content, ChecksumAlgorithm="SHA256")
    s3.download(base + "x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == content


def test_cancelling_ends_a_transfer_that_hangs(flaky, proxy, base, tmp_path):
    (tmp_path / "x").write_bytes(bytes(1000))
    flaky.upload(tmp_path / "x", base + "x")
    entry = flaky.stat(base + "x")
    proxy.is_deaf = True
    cancel, ended = Cancel(), []

    def work():
        with pytest.raises(CancelledError):
            flaky.download(base + "x", tmp_path / "to" / "x", entry=entry, cancel=cancel)
        ended.append(True)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    transfer_waits = threading.Event()
    while not proxy.deaf_connections:
        transfer_waits.wait(0.02)
    cancel.cancel()
    thread.join(30)
    assert ended
    assert list((tmp_path / "to").iterdir()) == []


def test_wrong_keys_are_said_at_once_and_without_the_secret(opened, base, tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    for wrong in ({"secret_access_key": "wrong-secret-0123"}, {"access_key_id": "NOBODY", "secret_access_key": "wrong-secret-0123"}):
        s3 = opened(**wrong)
        for action in (
            lambda s3=s3: s3.stat(base + "x"),
            lambda s3=s3: list(s3.entries(base)),
            lambda s3=s3: s3.upload(tmp_path / "x", base + "x"),
            lambda s3=s3: s3.check(BUCKET),
        ):
            with pytest.raises(StorageError, match=r"s3://ready.*refused") as caught:
                action()
            assert "wrong-secret" not in str(caught.value)
            assert not isinstance(caught.value, TransientStorageError)


def test_a_missing_bucket_is_said(s3):
    name = f"none-{uuid.uuid4().hex[:8]}"
    with pytest.raises(SourceMissingError, match="no such bucket"):
        list(s3.entries(f"{name}/"))
    with pytest.raises(SourceMissingError):
        s3.check(name)


def test_in_16_a_full_disk_is_said_and_the_space_given_back(s3, base, tmp_path):
    for name, size in (("small", 3 << 20), ("large", 40 << 20)):
        (tmp_path / "x").write_bytes(bytes(size))
        s3.upload(tmp_path / "x", base + name)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, hard))
        try:
            with pytest.raises(DiskFullError, match=f"s3://{base}{name}"):
                s3.download(base + name, tmp_path / "to" / "x")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert list((tmp_path / "to").iterdir()) == []


def test_fc_03_signed_addresses_give_one_object_without_keys(s3, base, tmp_path):
    content = os.urandom(100_000)
    put = s3.sign(base + "a b+ü", "PUT", expires_s=60)
    with urllib.request.urlopen(urllib.request.Request(put, data=content, method="PUT"), timeout=60) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(s3.sign(base + "a b+ü", expires_s=60), timeout=60) as answer:
        assert answer.read() == content
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(s3.sign(base + "a b+ü").replace("a%20b", "another"), timeout=60)
    assert caught.value.code == 403
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(s3.sign(base + "x"), data=b"x", method="PUT"), timeout=60)


def test_fc_03_large_files_go_up_in_parts_by_signed_addresses(s3, base, tmp_path):
    assert isinstance(s3, MultipartStorage)
    parts = [os.urandom(5 << 20), b"end"]
    upload_id = s3.start_multipart(base + "x")
    etags = []
    for number, part in enumerate(parts, 1):
        request = urllib.request.Request(s3.sign_part(base + "x", upload_id, number), data=part, method="PUT")
        with urllib.request.urlopen(request, timeout=60) as answer:
            etags.append(answer.headers["ETag"])
    assert s3.complete_multipart(base + "x", upload_id, etags).size == (5 << 20) + 3
    s3.download(base + "x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"".join(parts)
    s3.abort_multipart(base + "y", s3.start_multipart(base + "y"))
    assert s3.stat(base + "y") is None


def test_listings_have_any_number_of_pages_and_no_folder_markers(s3, s3_service, base, tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    assert s3.upload_many([(tmp_path / "x", f"{base}many/{number:04}") for number in range(1100)]) == []
    s3_service.client().put_object(Bucket=BUCKET, Key=base.partition("/")[2] + "many/marker/", Body=b"")
    sources = resolve(s3, Uri.parse(f"s3://{base}many/"))
    assert [source.path for source in sources] == [f"{number:04}" for number in range(1100)]
    s3.delete([source.key for source in sources])
    with pytest.raises(SourceMissingError):
        resolve(s3, Uri.parse(f"s3://{base}many/"))


def test_delete_takes_names_that_no_xml_can_hold_along_with_others(s3, base, tmp_path):
    (tmp_path / "x").write_bytes(b"1")
    keys = [base + name for name in ("a", "b", "c\x01", "\x1fd", "line\nbreak\ttab\rreturn", "<&>\"'")]
    for key in keys:
        s3.upload(tmp_path / "x", key)
    s3.delete(keys)
    assert [key for key in keys if s3.stat(key)] == []


def test_names_that_no_object_can_have_are_refused(s3, base, tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    for key in (base, BUCKET, base + "n" * 1100, base + "\udcff"):
        with pytest.raises(StorageError):
            s3.upload(tmp_path / "x", key)


LISTING = """<?xml version="1.0"?><ListBucketResult><EncodingType>url</EncodingType>{}<IsTruncated>false</IsTruncated></ListBucketResult>"""
OBJECT = "<Contents><Key>{}</Key><Size>1</Size><LastModified>2026-11-22T20:00:00.000Z</LastModified><ETag>x</ETag></Contents>"


@pytest.mark.parametrize(
    "keys",
    [
        ["d/../../x"],
        ["d/a/../../x"],
        ["d//abs/../../../x"],
        ["d/.."],
        ["d/a", "d/a/b"],
        ["d/a/b", "d/./a/b"],
        ["d/a%00b"],
        ["d/" + "n" * 256],
    ],
)
def test_in_12_hostile_keys_of_a_listing_are_refused(keys, tmp_path):
    with WebServer.running() as server:
        storages = Storages({"s3": {"type": "s3", "provider": "Other", "endpoint": f"http://{server.address}"}})
        listing = LISTING.format("".join(OBJECT.format(key) for key in keys))
        server.files["/bucket/?encoding-type=url&list-type=2&prefix=d%2F"] = listing.encode()
        with pytest.raises(StorageError, match="s3://bucket/d/"):
            resolve(storages.get("s3"), Uri.parse("s3://bucket/d/"))
        storages.close()


def test_in_12_names_that_are_hostile_elsewhere_stay_inside(tmp_path):
    keys = ["d/C:\\x", "d/...", "d/a\\..\\b"]
    with WebServer.running() as server:
        storages = Storages({"s3": {"type": "s3", "provider": "Other", "endpoint": f"http://{server.address}"}})
        listing = LISTING.format("".join(OBJECT.format(key) for key in keys))
        server.files["/bucket/?encoding-type=url&list-type=2&prefix=d%2F"] = listing.encode()
        sources = resolve(storages.get("s3"), Uri.parse("s3://bucket/d/"))
        storages.close()
    assert [source.path for source in sources] == sorted(["C:\\x", "...", "a\\..\\b"])
