"""Many small objects from S3, several at a time on one connection after the other: the plain case, TLS, and every trouble on the way."""

from __future__ import annotations

import os
import threading
import uuid

import pytest
from tests.lib.flaky import FlakyProxy
from tests.lib.tls import make_certificate, tls_front

from scitq.errors import CancelledError, SourceMissingError, StorageError
from scitq.storage import transfer
from scitq.storage.base import Cancel
from scitq.storage.registry import Storages
from scitq.storage.s3_small import SMALL

SIZES = [0, 1, 10_000, 70_000, SMALL, SMALL + 1]


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
def stored(opened, tmp_path):
    """Entries of 300 small objects, and what is in them."""
    s3, base = opened(), f"ready/{uuid.uuid4().hex[:8]}/"
    contents = {f"{base}{number:03}": os.urandom(SIZES[number % 6] if number < 30 else 10_000) for number in range(300)}
    sources = tmp_path / "sources"
    sources.mkdir()
    for key, content in contents.items():
        (sources / key.rpartition("/")[2]).write_bytes(content)
    assert s3.upload_many([(sources / key.rpartition("/")[2], key) for key in contents]) == []
    return list(s3.entries(base)), contents


def pairs_of(entries, folder):
    return [(entry, folder / "deep" / entry.key.rpartition("/")[2]) for entry in entries]


def require_all(pairs, contents):
    assert len(pairs) == len(contents)
    for entry, target in pairs:
        assert target.read_bytes() == contents[entry.key], entry
    assert set(pairs[0][1].parent.iterdir()) == {target for _, target in pairs}


def test_in_14_small_files_come_whole_though_connections_are_cut_and_bytes_change(opened, stored, s3_service, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "FIRST_WAIT_S", 0.01)
    entries, contents = stored
    with FlakyProxy.running(s3_service.endpoint) as proxy:
        s3 = opened(endpoint=f"http://{proxy.address}")
        proxy.cut_down, proxy.flip_down = [3000, 9000, 100, 200_000, 400], 3
        seen, pairs = [], pairs_of(entries, tmp_path)
        s3.download_many(pairs, progress=seen.append)
        assert (proxy.cut_down, proxy.flip_down) == ([], 0)
    require_all(pairs, contents)
    assert sum(seen) == sum(map(len, contents.values()))


def test_small_files_come_over_tls_and_a_certificate_must_be_trusted(opened, stored, s3_service, tmp_path):
    entries, contents = stored
    certificate, with_key = make_certificate(tmp_path)
    with tls_front(s3_service.endpoint, with_key) as address:
        s3 = opened(endpoint=f"https://{address}", ca_cert=str(certificate))
        pairs = pairs_of(entries, tmp_path)
        s3.download_many(pairs)
        require_all(pairs, contents)
        with pytest.raises(StorageError, match=r"certificate.*not trusted"):
            opened(endpoint=f"https://{address}").download_many(pairs_of(entries, tmp_path / "other"))


def test_cancelling_ends_small_downloads_that_hang_and_leaves_nothing_half(opened, stored, s3_service, tmp_path):
    entries, _ = stored
    cancel, ended = Cancel(), []
    with FlakyProxy.running(s3_service.endpoint) as proxy:
        s3 = opened(endpoint=f"http://{proxy.address}")
        proxy.is_deaf = True

        def work():
            with pytest.raises(CancelledError):
                s3.download_many(pairs_of(entries, tmp_path), cancel=cancel)
            ended.append(True)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        pause = threading.Event()
        while not proxy.deaf_connections:
            pause.wait(0.02)
        cancel.cancel()
        thread.join(30)
    assert ended
    assert not (tmp_path / "deep").exists()


def test_small_objects_that_changed_or_went_since_the_listing_are_errors(opened, stored, tmp_path):
    entries, _ = stored
    s3 = opened()
    (tmp_path / "new").write_bytes(os.urandom(10_000))
    s3.upload(tmp_path / "new", entries[50].key)
    with pytest.raises(StorageError, match=f"{entries[50].key}.*changed since it was listed"):
        s3.download_many(pairs_of(entries, tmp_path))
    s3.delete([entries[50].key])
    with pytest.raises(SourceMissingError, match=entries[50].key):
        s3.download_many(pairs_of(entries, tmp_path))
