"""A service that answers late, half, wrongly or from elsewhere: what may pass is mended, what is stored or read is whole, all else is said."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress

import pytest
from tests.lib.answers import Answers, Fault
from tests.lib.mounts import tmpfs

from scitq.errors import DiskFullError, ScitqError, SourceMissingError, StorageError
from scitq.storage.base import Entry
from scitq.storage.registry import Storages

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
INTERNAL = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
DATA = {"small": os.urandom(300_000), "large": os.urandom(33 << 20)}


@pytest.fixture(scope="module")
def base(s3_service):
    base, client = f"{uuid.uuid4().hex[:8]}/", s3_service.client()
    for name, data in DATA.items():
        client.put_object(Bucket="ready", Key=base + name, Body=data)
    return base


@pytest.fixture(scope="module")
def proxy(s3_service):
    with Answers.before(s3_service.endpoint) as made:
        yield made


@pytest.fixture
def s3(s3_service, proxy):
    storages = Storages({"s3": s3_service.rclone() | {"endpoint": proxy.url}})
    yield storages.get("s3")
    proxy.faults = []
    storages.close()


FAULTS = {
    "slow down": {"kind": "status", "body": SLOW_DOWN, "times": 2},
    "no xml": {"kind": "status", "status": 500, "body": b"<html>oops", "times": 2},
    "too many": {"kind": "status", "status": 429, "times": 2},
    "half": {"kind": "half", "times": 2},
    "reset": {"kind": "reset", "times": 2},
    "slow": {"kind": "drip", "times": 1, "pause_s": 0.005},
}


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("fault", FAULTS)
def test_in_14_downloads_are_whole_whatever_the_service_does(s3, proxy, base, tmp_path, name, fault):
    proxy.faults = [Fault(part=name, **FAULTS[fault])]
    s3.download(f"ready/{base}{name}", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA[name]
    assert proxy.faults[0].times == 0
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("small", Fault("status", "PUT", body=SLOW_DOWN, times=2)),
        ("small", Fault("lost", "PUT", times=2)),
        ("small", Fault("status", "PUT", status=400, body=b"<Error><Code>RequestTimeout</Code></Error>")),
        ("large", Fault("status", "PUT", body=SLOW_DOWN, times=2)),
        ("large", Fault("lost", "PUT", times=1)),
        ("large", Fault("status", "POST", "uploadId", status=200, body=INTERNAL)),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.kind} {value.method} {value.status}",
)
def test_in_14_uploads_are_whole_whatever_the_service_does(s3, s3_service, proxy, base, tmp_path, name, fault):
    (tmp_path / "x").write_bytes(DATA[name])
    proxy.faults = [Fault(**vars(fault))]
    key = f"{base}up/{uuid.uuid4().hex[:8]}"
    s3.upload(tmp_path / "x", f"ready/{key}")
    assert proxy.faults[0].times == 0
    assert s3_service.client().get_object(Bucket="ready", Key=key)["Body"].read() == DATA[name]
    assert not s3_service.client().list_multipart_uploads(Bucket="ready", Prefix=key).get("Uploads")


@pytest.mark.parametrize(
    "fault", [Fault("status", status=200, body=DATA["small"]), Fault("status", status=206, body=bytes(32 << 20))], ids=["all", "other"]
)
def test_in_14_ranges_that_are_not_what_was_asked_for_are_noticed(s3, proxy, base, tmp_path, fault):
    proxy.faults = [Fault(**vars(fault) | {"part": "large", "times": 99})]
    with pytest.raises(StorageError, match="large"):
        s3.download(f"ready/{base}large", tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_an_object_that_changes_or_goes_while_it_is_read_is_never_a_mixture(s3, s3_service, proxy, base, tmp_path):
    client, key = s3_service.client(), f"{base}changing"
    for then in (
        lambda: client.put_object(Bucket="ready", Key=key, Body=DATA["large"][::-1]),
        lambda: client.delete_object(Bucket="ready", Key=key),
    ):
        client.put_object(Bucket="ready", Key=key, Body=DATA["large"])
        proxy.faults = [Fault("call", part="changing", skipped=1, then=then)]
        with suppress(StorageError, SourceMissingError):
            s3.download(f"ready/{key}", tmp_path / "x")
            assert (tmp_path / "x").read_bytes() in (DATA["large"], DATA["large"][::-1])  # both ranges were under way already
            (tmp_path / "x").unlink()
        assert proxy.faults[0].times == 0
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("status", [301, 307, 400])
@pytest.mark.parametrize("way", ["header", "error", "question"])
def test_a_bucket_of_another_region_is_asked_there(s3, proxy, base, status, way):
    named = b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region></Error>"
    headers = (("x-amz-bucket-region", "eu-west-3"),) if way == "header" else ()
    method, part = ("HEAD", "small") if way == "question" else ("GET", "list-type")
    proxy.faults = [Fault("status", method, part, status=status, headers=headers, body=b"" if way == "header" else named)]
    proxy.faults += [Fault("status", "GET", "location", status=status, body=named)] if way == "question" else []
    if way == "question":
        assert s3.stat(f"ready/{base}small").size == len(DATA["small"])
    else:
        assert f"ready/{base}small" in {entry.key for entry in s3.entries(f"ready/{base}s")}
    assert s3._calls._whereabouts("ready")[1] == "eu-west-3"
    assert not any(fault.times for fault in proxy.faults)


@pytest.mark.parametrize(
    "body", [b"<html>a proxy's page</html>", b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>", b"{}"]
)
def test_in_08_an_answer_that_is_no_list_is_no_empty_folder(s3, proxy, base, body):
    proxy.faults = [Fault("status", part="list-type", status=200, body=body)]
    assert len(list(s3.entries(f"ready/{base}"))) >= 2


def test_in_08_what_never_answers_as_s3_is_said(s3, proxy, base):
    proxy.faults = [Fault("status", part="list-type", status=200, body=b"<html>a proxy's page</html>", times=99)]
    with pytest.raises(ScitqError, match=r"s3://ready.*something else answers"):
        list(s3.entries(f"ready/{base}"))


def test_a_wrong_clock_is_said(s3, proxy, base):
    proxy.faults = [Fault("status", part="list-type", status=403, body=b"<Error><Code>RequestTimeTooSkewed</Code></Error>")]
    with pytest.raises(StorageError, match="clock"):
        list(s3.entries(f"ready/{base}"))


@pytest.mark.parametrize(("name", "how"), [("large", "shorter"), ("large", "longer"), ("large", "other"), ("small", "longer")])
def test_out_09_a_file_that_changes_while_it_is_uploaded_is_named_and_the_others_go(s3, proxy, base, tmp_path, name, how):
    place, changing, other = f"ready/{base}{uuid.uuid4().hex[:8]}/", tmp_path / "changing", tmp_path / "other"
    changing.write_bytes(DATA[name])
    other.write_bytes(b"other")

    def change():
        match how:
            case "shorter":
                os.truncate(changing, 1000)
            case "longer":
                with changing.open("ab") as file:
                    file.write(b"more")
            case "other":
                changing.write_bytes(DATA[name][::-1])

    first = Fault("call", "POST", "changing?uploads", then=change) if name == "large" else Fault("call", "PUT", "changing", then=change)
    proxy.faults = [first]
    failures = s3.upload_many([(changing, f"{place}changing"), (other, f"{place}other")])
    assert [failure.key for failure in failures] == [f"{place}changing"]
    assert f"s3://{place}changing: {changing}" in str(failures[0].error)
    assert s3.stat(f"{place}other").size == 5


def test_in_16_a_disk_that_fills_up_in_a_download_fails_it_and_a_later_try_succeeds(s3, proxy, base, tmp_path):
    small = [Entry(f"ready/{base}tiny/{number}", 100_000) for number in range(20)]
    (tmp_path / "tiny").write_bytes(bytes(100_000))
    assert not s3.upload_many([(tmp_path / "tiny", entry.key) for entry in small])
    with tmpfs(tmp_path / "disk", "40m") as disk:
        (disk / "other").write_bytes(bytes(39 << 20))
        wanted = {
            "large": [(s3.stat(f"ready/{base}large"), disk / "to" / "large")],
            "tiny": [(one, disk / "to" / one.key[-2:].strip("/")) for one in small],
        }
        for pairs in wanted.values():
            with pytest.raises(DiskFullError, match=f"s3://ready/{base}"):
                s3.download_many(pairs)
            assert not list(disk.rglob("*.part"))
        (disk / "other").unlink()
        for pairs in wanted.values():
            s3.download_many(pairs)
            assert all(target.stat().st_size == entry.size for entry, target in pairs)
