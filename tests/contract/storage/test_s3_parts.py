"""Objects that were stored in parts: each is proved by a sum of the whole, or by its parts' sums where the service tells their sizes."""

from __future__ import annotations

import base64
import os
import uuid
import zlib

import pytest
from tests.lib.flaky import FlakyProxy

from scitq.errors import StorageError
from scitq.storage.registry import Storages

BUCKET = "ready"
MIB = 1 << 20


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
def proxy(s3_service):
    with FlakyProxy.running(s3_service.endpoint) as proxy:
        yield proxy


def store_in_parts(client, key, parts, **options):
    """As any other tool does it, without sums."""
    where = {"Bucket": BUCKET, "Key": key}
    upload = client.create_multipart_upload(**where, **options)["UploadId"]
    done = []
    for number, part in enumerate(parts, 1):
        etag = client.upload_part(**where, UploadId=upload, PartNumber=number, Body=part)["ETag"]
        done.append({"PartNumber": number, "ETag": etag})
    client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": done})


@pytest.mark.parametrize("sizes", [[8 * MIB] * 5 + [1], [5 * MIB, 9 * MIB, 7 * MIB, 20 * MIB, 3], [5 * MIB, 100]])
def test_in_14_parts_of_other_tools_are_proved_by_their_sums(opened, proxy, s3_service, tmp_path, sizes):
    key, parts = uuid.uuid4().hex, [os.urandom(size) for size in sizes]
    client = s3_service.client()
    store_in_parts(client, key, parts)
    assert "ChecksumCRC32" not in client.head_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")
    spoilt = opened(endpoint=f"http://{proxy.address}")
    spoilt.download(f"{BUCKET}/{key}", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"".join(parts)
    proxy.flip_down = 1
    with pytest.raises(StorageError, match=f"s3://{BUCKET}/{key}.*parts' MD5 sums"):
        spoilt.download(f"{BUCKET}/{key}", tmp_path / "bad")
    assert proxy.flip_down == 0
    assert not (tmp_path / "bad").exists()
    proxy.hidden = b"x-amz-mp-parts-count"  # such a service does not tell the parts' sizes: the size is all there is
    spoilt.download(f"{BUCKET}/{key}", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == b"".join(parts)


def test_in_14_what_we_store_in_parts_carries_a_sum_where_the_service_keeps_none(opened, proxy, s3_service, tmp_path):
    proxy.hidden = b"x-amz-checksum"
    older = opened(endpoint=f"http://{proxy.address}")
    content = os.urandom(70 * MIB)
    (tmp_path / "x").write_bytes(content)
    for _ in range(2):
        key = uuid.uuid4().hex
        older.upload(tmp_path / "x", f"{BUCKET}/{key}")
        noted = s3_service.client().head_object(Bucket=BUCKET, Key=key)["Metadata"]
        assert noted == {"scitq-crc32": base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()}
    left = s3_service.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    assert not [upload for upload in left if upload["Key"] == key]
    older.download(f"{BUCKET}/{key}", tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == content
    proxy.flip_down = 1
    with pytest.raises(StorageError, match=f"s3://{BUCKET}/{key}.*CRC-32"):
        older.download(f"{BUCKET}/{key}", tmp_path / "bad")
    assert not (tmp_path / "bad").exists()


def test_in_14_an_object_that_is_not_what_its_noted_sum_says_is_refused(opened, s3_service, tmp_path):
    key = uuid.uuid4().hex
    store_in_parts(s3_service.client(), key, [os.urandom(20 * MIB)] * 2, Metadata={"scitq-crc32": "AAAAAA=="})
    with pytest.raises(StorageError, match=f"s3://{BUCKET}/{key}.*CRC-32"):
        opened().download(f"{BUCKET}/{key}", tmp_path / "bad")
    assert not (tmp_path / "bad").exists()
