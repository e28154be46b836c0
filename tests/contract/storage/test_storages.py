"""What every storage does alike: the promises of sections 4 to 8, driven against real servers."""

from __future__ import annotations

import io
import os
import threading

import pytest

from scitq.errors import CancelledError, SourceMissingError, StorageError
from scitq.model.uri import Uri
from scitq.storage.base import Cancel
from scitq.storage.resolve import resolve

ODD_NAMES = [
    "with blank.dat",
    "-dash",
    ".hidden",
    "é.dat",
    "e\u0301.dat",
    "a:b",
    "#hash",
    "lit%20eral",
    "plus+and&",
    "quotes'\"",
    "at@sign",
    "x [1].dat",
    "a?b.dat",
    "{a,b}.dat",
    "back\\slash",
    "bang!",
    "pipe|name",
    "star*name",
    "~tilde",
    "$HOME`id`",
    "日本語",
    "n" * 255,
    "new\nline",
    "tab\tand\x7f",
    "symbol␊",
]
# SeaweedFS turns backslashes into slashes, whoever stores them; rclone's WebDAV server takes composed and decomposed letters for the same.
CHANGED_BY_SERVER = {"webdav": {"e\u0301.dat"}, "s3": {"back\\slash"}, "s3-by-rclone": {"back\\slash"}}


def put(place, files: dict[str, bytes], tmp_path):
    pairs = []
    for number, (name, content) in enumerate(files.items()):
        source = tmp_path / f"source-{number}"
        source.write_bytes(content)
        pairs.append((source, place.base + name))
    assert place.storage.upload_many(pairs) == []


def fetch(place, text, folder):
    sources = resolve(place.storage, Uri.parse(text))
    place.storage.download_many([(source.entry, folder / source.path) for source in sources])
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_in_04_06_folders_and_patterns(place, tmp_path):
    names = ["a/x", "b/x", "1.dat", ".dat", "1.dat.gz", "sub/2.dat", "dir.dat/in/side", "empty"]
    put(place, {name: b"" if name == "empty" else name.encode() for name in names}, tmp_path)
    assert set(fetch(place, place.uri(""), tmp_path / "all")) == set(names)
    assert set(fetch(place, place.uri("").rstrip("/"), tmp_path / "all2")) == set(names)
    assert set(fetch(place, place.uri("*.dat"), tmp_path / "star")) == {"1.dat", ".dat", "dir.dat/in/side"}
    assert set(fetch(place, place.uri("*/x"), tmp_path / "middle")) == {"a/x", "b/x"}
    assert fetch(place, place.uri("empty"), tmp_path / "one") == {"empty": b""}
    for text in ("nothing", "nothing/", "*.nothing", "1.da", "a/x/"):
        with pytest.raises(SourceMissingError) as caught:
            resolve(place.storage, Uri.parse(place.uri(text)))
        assert place.uri(text) in str(caught.value)


def test_in_07_11_odd_names_go_up_and_come_down_unchanged(place, tmp_path):
    names = [name for name in ODD_NAMES if name not in CHANGED_BY_SERVER.get(place.kind, set())]
    put(place, {f"odd/{name}": name.encode() for name in names}, tmp_path)
    assert fetch(place, place.uri("odd/"), tmp_path / "folder") == {name: name.encode() for name in names}
    assert set(fetch(place, place.uri("odd/*"), tmp_path / "star")) == set(names)
    for number, name in enumerate(names):
        if "*" not in name:
            text = place.uri("odd/" + name.replace("|", "%7C"))
            assert fetch(place, text, tmp_path / f"one-{number}") == {name: name.encode()}, name


def test_listings_tell_sizes_and_one_level(place, tmp_path):
    put(place, {"f": b"12345", "d/g": b"1", "d/e/h": b"12"}, tmp_path)
    deep = {entry.key.removeprefix(place.base): entry.size for entry in place.storage.entries(place.base)}
    assert deep == {"f": 5, "d/g": 1, "d/e/h": 2}
    level = {entry.key.removeprefix(place.base) for entry in place.storage.entries(place.base, recursive=False)}
    assert level == {"f", "d/"}
    assert {entry.key.removeprefix(place.base) for entry in place.storage.entries(place.base + "d/")} == {"d/g", "d/e/h"}
    found = place.storage.stat(place.base + "f")
    assert found is not None
    assert (found.size, found.key) == (5, place.base + "f")
    assert found.version == next(entry.version for entry in place.storage.entries(place.base + "f"))
    assert place.storage.stat(place.base + "d") is None
    assert place.storage.stat(place.base + "none") is None


def test_res_08_a_changed_source_has_another_version_and_a_stale_listing_is_refused(place, tmp_path):
    put(place, {"f": b"one"}, tmp_path)
    before = place.storage.stat(place.base + "f")
    put(place, {"f": b"another"}, tmp_path)
    after = place.storage.stat(place.base + "f")
    assert before.version != after.version
    with pytest.raises(StorageError, match="changed"):
        place.storage.download(place.base + "f", tmp_path / "f", entry=before)
    assert not (tmp_path / "f").exists()
    assert place.storage.download(place.base + "f", tmp_path / "f").size == 7
    assert (tmp_path / "f").read_bytes() == b"another"


def test_large_files_and_streams_keep_their_content(place, tmp_path):
    content = os.urandom(1 << 20) * 40 + b"end"
    source = tmp_path / "big"
    source.write_bytes(content)
    seen: list[int] = []
    place.storage.upload(source, place.base + "big", progress=seen.append)
    assert sum(seen) == len(content)
    seen.clear()
    place.storage.download(place.base + "big", tmp_path / "back", progress=seen.append)
    assert sum(seen) == len(content)
    assert (tmp_path / "back").read_bytes() == content
    with place.storage.open_read(place.base + "big", offset=7) as stream:
        pieces = []
        while piece := stream.read(1 << 20):
            pieces.append(piece)
    assert b"".join(pieces) == content[7:]
    for size in (None, len(content)):
        place.storage.put_stream(io.BytesIO(content), place.base + "stream", size=size)
        assert place.storage.stat(place.base + "stream").size == len(content)
    with pytest.raises(StorageError):
        place.storage.put_stream(io.BytesIO(b"short"), place.base + "wrong", size=10)
    assert place.storage.stat(place.base + "wrong") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "big"]


def test_a_missing_source_leaves_no_target(place, tmp_path):
    with pytest.raises(SourceMissingError) as caught:
        place.storage.download(place.base + "none", tmp_path / "to" / "x")
    assert place.base + "none" in str(caught.value)
    assert not (tmp_path / "to" / "x").exists()
    with pytest.raises(SourceMissingError), place.storage.open_read(place.base + "none") as stream:
        stream.read(1)


def test_delete_takes_what_it_is_told_and_no_more(place, tmp_path):
    names = ["a", "b", "c", "d e&f<g>.x"]
    put(place, dict.fromkeys(names, b"x"), tmp_path)
    place.storage.delete([place.base + name for name in ("a", "none", "d e&f<g>.x")])
    assert {entry.key.removeprefix(place.base) for entry in place.storage.entries(place.base)} == {"b", "c"}


def test_cancelling_stops_a_transfer_and_leaves_nothing(place, tmp_path):
    source = tmp_path / "big"
    source.write_bytes(bytes(48 << 20))
    place.storage.upload(source, place.base + "big")
    cancel = Cancel()
    with pytest.raises(CancelledError):
        place.storage.download(place.base + "big", tmp_path / "to" / "x", progress=lambda _count: cancel.cancel(), cancel=cancel)
    assert list((tmp_path / "to").iterdir()) == []
    with pytest.raises(CancelledError):
        place.storage.download(place.base + "big", tmp_path / "to" / "x", cancel=cancel)
    late = Cancel()
    timer = threading.Timer(0.05, late.cancel)
    timer.start()

    def upload_until_cancelled():
        while True:
            place.storage.upload(source, place.base + "other", cancel=late)

    with pytest.raises(CancelledError):
        upload_until_cancelled()
    timer.join()


def test_check_accepts_what_is_there(place):
    place.storage.check()
    place.storage.check(place.base.partition("/")[0])
