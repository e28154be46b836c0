import os

import pytest
from tests.lib.webserver import WebServer

from scitq.errors import SourceMissingError, StorageError, TransientStorageError
from scitq.model.uri import Uri
from scitq.storage import transfer
from scitq.storage.registry import Storages
from scitq.storage.resolve import resolve


@pytest.fixture
def server():
    with WebServer.running() as server:
        yield server


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(transfer, "FIRST_WAIT_S", 0.01)


@pytest.fixture
def web():
    storages = Storages({})
    yield storages.get("http")
    storages.close()


def test_in_15_a_file_with_a_query_has_the_name_without_it(server, web, tmp_path):
    server.files["/a/x%20y.dat?sig=a%2Fb&c=*"] = b"content"
    (source,) = resolve(web, Uri.parse(f"http://{server.address}/a/x%20y.dat?sig=a%2Fb&c=*"))
    assert (source.path, source.size) == ("x%20y.dat", 7)
    web.download(source.key, tmp_path / "x", entry=source.entry)
    assert (tmp_path / "x").read_bytes() == b"content"


def test_in_15_redirects_are_followed_but_not_for_ever(server, web, tmp_path):
    server.files["/real"] = b"content"
    server.redirects |= {"/a": "/b?x=1", "/b?x=1": f"http://{server.address}/real", "/loop": "/loop"}
    web.download(f"{server.address}/a", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"content"
    with pytest.raises(StorageError, match="redirects"):
        web.download(f"{server.address}/loop", tmp_path / "y")


def test_in_14_a_cut_transfer_is_resumed_where_it_ended(server, web, tmp_path):
    server.files["/x"] = os.urandom(3_000_000)
    server.cut_after = [1_000_000, 500_000]
    seen = []
    web.download(f"{server.address}/x", tmp_path / "x", progress=seen.append)
    assert (tmp_path / "x").read_bytes() == server.files["/x"]
    assert sum(seen) == 3_000_000
    assert [asked for _, _, asked in server.requests if asked != "bytes=0-0"] == [
        "bytes=0-2999999",
        "bytes=1000000-2999999",
        "bytes=1500000-2999999",
    ]


@pytest.mark.parametrize("tells_length", [True, False])
def test_in_14_without_ranges_a_cut_transfer_starts_anew(server, web, tmp_path, tells_length):
    server.files["/x"] = os.urandom(300_000)
    server.has_ranges, server.tells_length = False, tells_length
    server.cut_after = [150_000]
    seen = []
    web.download(f"{server.address}/x", tmp_path / "x", progress=seen.append)
    assert (tmp_path / "x").read_bytes() == server.files["/x"]
    assert sum(seen) == 300_000


def test_in_14_a_server_that_fails_is_tried_again_and_then_named(server, web, tmp_path):
    server.files["/x"] = b"content"
    server.fail = 3
    web.download(f"{server.address}/x", tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"content"
    server.fail = 1000
    with pytest.raises(TransientStorageError, match=f"http://{server.address}/x"):
        web.download(f"{server.address}/x", tmp_path / "y")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_what_is_missing_or_empty_or_unwritable_is_told_apart(server, web, tmp_path):
    server.files["/empty"] = b""
    assert web.download(f"{server.address}/empty", tmp_path / "empty").size == 0
    assert (tmp_path / "empty").read_bytes() == b""
    with pytest.raises(SourceMissingError):
        web.download(f"{server.address}/none", tmp_path / "x")
    with pytest.raises(SourceMissingError):
        resolve(web, Uri.parse(f"http://{server.address}/none"))
    with pytest.raises(StorageError, match="read only"):
        web.upload(tmp_path / "empty", f"{server.address}/x")
    with web.open_read(f"{server.address}/empty") as stream:
        assert stream.read(10) == b""


def test_streams_start_where_they_are_told(server, web):
    server.files["/x"] = bytes(range(256)) * 100
    for has_ranges in (True, False):
        server.has_ranges = has_ranges
        with web.open_read(f"{server.address}/x", offset=1000) as stream:
            assert b"".join(iter(lambda: stream.read(5000), b"")) == server.files["/x"][1000:]


def test_nobody_at_the_address_is_said(web, tmp_path):
    with pytest.raises(TransientStorageError, match="refused"):
        web.download("127.0.0.1:1/x", tmp_path / "x")
