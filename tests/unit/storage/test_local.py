import os
import threading

import pytest

from scitq.errors import CancelledError, SourceMissingError, StorageError, UsageError
from scitq.model.uri import Uri
from scitq.storage.base import Cancel
from scitq.storage.registry import Storages
from scitq.storage.resolve import resolve, safe_path


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def storages(root):
    storages = Storages({"nas": {"type": "local", "root": str(root)}}, file_folders=[root / "open"])
    yield storages
    storages.close()


@pytest.fixture
def nas(storages):
    return storages.get("nas")


def put(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def paths(storage, text):
    return [source.path for source in resolve(storage, Uri.parse(text))]


def test_res_01_an_unknown_storage_is_refused_with_the_known_ones(storages):
    with pytest.raises(UsageError, match=r"known are file, ftp, http, https, nas"):
        storages.require_known(Uri.parse("s3://b/x"))
    storages.require_known(Uri.parse("nas://b/x"))


def test_in_04_05_folders_are_taken_whole_with_or_without_their_slash(root, nas):
    put(root, "b/data/a/x", "b/data/b/x", "b/data/.hidden", "b/data2/x")
    expected = [".hidden", "a/x", "b/x"]
    assert paths(nas, "nas://b/data/") == expected
    assert paths(nas, "nas://b/data") == expected
    assert paths(nas, "nas://b/data/a/x") == ["x"]
    assert paths(nas, "nas://b") == ["data/.hidden", "data/a/x", "data/b/x", "data2/x"]


def test_in_06_patterns_match_one_level_and_folders_bring_their_content(root, nas):
    put(root, "b/d/1.dat", "b/d/sub/2.dat", "b/d/1.dat.gz", "b/d/.dat", "b/d/f.dat/x/y", "b/e/1.dat")
    assert paths(nas, "nas://b/d/*.dat") == [".dat", "1.dat", "f.dat/x/y"]
    assert paths(nas, "nas://b/*/1.dat") == ["d/1.dat", "e/1.dat"]
    assert paths(nas, "nas://b/d/*/") == ["f.dat/x/y", "sub/2.dat"]
    assert paths(nas, "nas://b/d/*/*") == ["f.dat/x/y", "sub/2.dat"]


@pytest.mark.parametrize("text", ["nas://b/none", "nas://b/none/", "nas://b/*.none", "nas://none/", "nas://b/empty/", "nas://b/file/x"])
def test_in_08_what_names_nothing_is_an_error_with_the_uri(root, nas, text):
    put(root, "b/file")
    (root / "b/empty").mkdir()
    with pytest.raises(SourceMissingError) as caught:
        resolve(nas, Uri.parse(text))
    assert text in str(caught.value)


@pytest.mark.parametrize("path", ["../../x", "a/../../x", "/abs", "..", "a/..", "", ".", "x\0y", "n" * 256])
def test_in_12_hostile_names_are_refused(path):
    with pytest.raises(StorageError):
        safe_path(path, "s3://b/x")


def test_links_never_lead_out_of_the_root(root, nas, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("hidden")
    put(root, "b/x")
    (root / "b/out").symlink_to(secret)
    (root / "b/file").symlink_to(secret / "key")
    (root / "b/inside").symlink_to("x")
    (root / "b/loop").symlink_to(".")
    assert paths(nas, "nas://b/") == ["inside", "x"]
    for key in ("b/out/key", "b/file", "b/../../secret/key"):
        with pytest.raises(StorageError):
            nas.download(key, tmp_path / "got")
        with pytest.raises(StorageError), nas.open_read(key):
            pass
    with pytest.raises(StorageError):
        nas.upload(secret / "key", "b/out/new")
    with pytest.raises(StorageError):
        nas.delete(["b/out/key"])
    assert names(secret) == ["key"]
    assert not (tmp_path / "got").exists()


def test_in_15_file_uris_reach_allowed_folders_only(root, storages, tmp_path):
    put(root, "open/x", "closed/y")
    file = storages.get("file")
    assert paths(file, f"file://{root}/open/") == ["x"]
    with pytest.raises(StorageError, match="allow"):
        resolve(file, Uri.parse(f"file://{root}/closed/y"))
    with pytest.raises(StorageError):
        resolve(file, Uri.parse(f"file://{root}/open/../closed/y"))


def test_a_cancelled_download_leaves_nothing(root, nas, tmp_path):
    (root / "big").write_bytes(bytes(64 << 20))
    cancel = Cancel()
    target = tmp_path / "to" / "big"
    with pytest.raises(CancelledError):
        nas.download("big", target, progress=lambda _count: cancel.cancel(), cancel=cancel)
    assert names(target.parent) == []


def test_a_source_that_changed_since_it_was_listed_is_refused(root, nas, tmp_path):
    put(root, "x")
    entry = nas.stat("x")
    (root / "x").write_text("changed")
    with pytest.raises(StorageError, match="changed"):
        nas.download("x", tmp_path / "x", entry=entry)
    assert not (tmp_path / "x").exists()


def test_a_fifo_is_refused_without_hanging(nas, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    done = []

    def upload():
        with pytest.raises(StorageError):
            nas.upload(tmp_path / "pipe", "b/pipe")
        done.append(True)

    thread = threading.Thread(target=upload, daemon=True)
    thread.start()
    thread.join(30)
    assert done


def test_out_09_a_failed_upload_does_not_hide_the_others(root, nas, tmp_path):
    for name in "abc":
        (tmp_path / name).write_text(name)
    (root / "b/b").mkdir(parents=True)
    failures = nas.upload_many([(tmp_path / name, f"b/{name}") for name in "abc"])
    assert [failure.key for failure in failures] == ["b/b"]
    assert names(root / "b") == ["a", "b", "c"]
