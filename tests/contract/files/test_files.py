"""`file copy` and its kin without the wire: the client's transfers against the server's service, over storages that relay and that sign."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from tests.lib.flaky import FlakyProxy

from scitq.broker.files import FileService
from scitq.client import copying
from scitq.client.files import Server, Transfers
from scitq.errors import CancelledError, NotFoundError, ScitqError, SourceMissingError, StorageError, UsageError
from scitq.protocol.messages import file as m
from scitq.storage.base import Cancel

METHODS = {
    m.FileList: FileService.list,
    m.FileFind: FileService.find,
    m.FileSign: FileService.sign,
    m.FileStartParts: FileService.start_parts,
    m.FileEndParts: FileService.end_parts,
    m.FileRead: FileService.read,
    m.FileWrite: FileService.write,
    m.FileWriteChunk: FileService.write_chunk,
    m.FileEndWrite: FileService.end_write,
    m.FileDelete: FileService.delete,
    m.FileCheck: FileService.check,
    m.FileCopy: FileService.copy,
    m.FileCopyStatus: FileService.copy_status,
}


class Direct:
    """Calls the service where a connection would."""

    def __init__(self, service):
        self.service = service
        self.seen = []

    def call(self, message, reply):
        self.seen.append(type(message))
        answer = METHODS[type(message)](self.service, message)
        assert isinstance(answer, reply)
        return answer


class Site:
    """A server with a storage `st` of the kind asked for (its bucket is `base`) and a local one, `disk`."""

    def __init__(self, root, entry, base):
        self.disk = root / "disk"
        self.disk.mkdir()
        self.home = root / "home"
        self.home.mkdir()
        self.service = FileService({"st": entry, "disk": {"type": "local", "root": str(self.disk)}})
        self.direct = Direct(self.service)
        self.server = Server(self.direct)
        self.base = f"st://{base}"
        self.shown = []

    def copy(self, *words):
        *sources, target = [str(word) for word in words]
        return copying.copy(lambda: self.server, sources, target, lambda done, total: self.shown.append((done, total)))

    def put(self, name, data=b"data"):
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def paths(self, uri, **options):
        return {row.path: row.size for row in self.service.list(m.FileList(uri=uri, **options)).rows}


@pytest.fixture(scope="module")
def bucket(s3_service):
    return s3_service.new_bucket()


@pytest.fixture(params=["local", "s3"])
def site(request, tmp_path, monkeypatch):
    if request.param == "local":
        entry, base = {"type": "local", "root": str(tmp_path / "disk")}, "b"
    else:
        service = request.getfixturevalue("s3_service")
        entry, base = service.rclone(), f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    made = Site(tmp_path, entry, base)
    monkeypatch.chdir(made.home)
    yield made
    made.service.close()


def test_fc_01_fc_02_a_file_there_and_back(site):
    data = os.urandom(3_000_000)
    site.put("mybinary", data)
    copied = site.copy("mybinary", f"{site.base}/resource/mybinary")
    assert (copied.files, copied.bytes) == (1, len(data))
    assert site.paths(f"{site.base}/resource/") == {"mybinary": len(data)}
    site.copy(f"{site.base}/resource/mybinary", "back")
    assert (site.home / "back").read_bytes() == data
    assert max(site.shown) == (len(data), len(data))
    (site.home / "folder").mkdir()
    site.copy(f"{site.base}/resource/mybinary", "folder")
    site.copy(f"{site.base}/resource/mybinary", "new/")
    assert (site.home / "folder/mybinary").read_bytes() == (site.home / "new/mybinary").read_bytes() == data
    site.copy("mybinary", f"{site.base}/into/")
    assert site.paths(f"{site.base}/into/") == {"mybinary": len(data)}


def test_fc_03_secrets_stay_with_the_server_and_s3_is_signed(site):
    site.put("x", b"1")
    site.copy("x", f"{site.base}/x")
    site.copy(f"{site.base}/x", "y")
    is_signed = site.service.sign(m.FileSign(uris=[f"{site.base}/x"])).urls != []
    assert is_signed == (m.FileRead not in site.direct.seen) == (m.FileWrite not in site.direct.seen)
    assert "SK" not in repr(site.service.find(m.FileFind(uri=f"{site.base}/x")))


def test_fc_02_folders_and_patterns_in_all_directions(site):
    for name in ("d/a/x.dat", "d/b/y.dat", "d/.h", "d/b/z.txt"):
        site.put(name, name.encode())
    site.copy("d", f"{site.base}/up")
    assert set(site.paths(f"{site.base}/up/", is_recursive=True)) == {"a/x.dat", "b/y.dat", ".h", "b/z.txt"}
    site.copy(f"{site.base}/up/", "down")
    assert (site.home / "down/b/z.txt").read_bytes() == b"d/b/z.txt"
    site.copy(f"{site.base}/up/*/*.dat", "some/")
    assert sorted(path.name for path in (site.home / "some").rglob("*.dat")) == ["x.dat", "y.dat"]
    site.copy("d/*", f"{site.base}/star")
    assert set(site.paths(f"{site.base}/star", is_recursive=True)) == {"a/x.dat", "b/y.dat", ".h", "b/z.txt"}
    copied = site.copy(f"{site.base}/up/", "disk://k/there")
    assert (copied.files, (site.disk / "k/there/a/x.dat").read_bytes()) == (4, b"d/a/x.dat")
    site.copy(f"{site.base}/up/a/x.dat", f"{site.base}/second")
    assert site.paths(f"{site.base}/second") == {"second": 9}
    site.copy("d/a/x.dat", "local copy")
    assert (site.home / "local copy").read_bytes() == b"d/a/x.dat"
    site.copy("d/a/x.dat", "d/b/y.dat", f"{site.base}/two")
    assert set(site.paths(f"{site.base}/two")) == {"x.dat", "y.dat"}


def test_fc_02_a_missing_source_is_an_error_and_leaves_no_target(site):
    for words in (("absent", f"{site.base}/x"), ("no*", f"{site.base}/x"), (f"{site.base}/absent", "here"), (f"{site.base}/no/", "here")):
        with pytest.raises(ScitqError):
            site.copy(*words)
    with pytest.raises(SourceMissingError):
        site.copy(f"{site.base}/absent", "disk://k/x")
    assert list(site.home.iterdir()) == []
    with pytest.raises(NotFoundError):
        site.paths(f"{site.base}/x")


def test_fc_04_odd_local_names_and_what_exists_on_disk_wins(site):
    names = ["with blank (1).txt", "é.txt", "e\u0301.txt", "a:b.txt", "#x?.txt", "100%25.txt", "[1]{2}.txt", "-x.txt", "|bar.txt", "st:x"]
    for name in names:
        site.put(name, name.encode())
        site.copy(f"./{name}", f"{site.base}/odd/")
    assert set(site.paths(f"{site.base}/odd/")) == set(names)
    site.copy(f"{site.base}/odd/", "back")
    assert {path.name: path.read_bytes() for path in (site.home / "back").iterdir()} == {name: name.encode() for name in names}
    site.put("disk:/k/f", b"a local file in a folder named disk:")
    site.copy("disk://k/f", f"{site.base}/won")
    assert site.paths(f"{site.base}/won") == {"won": 36}
    site.copy("-x.txt", "./disk://k/g")
    assert (site.home / "disk:/k/g").exists()


def test_fc_05_a_changed_or_damaged_copy_is_noticed_and_leaves_nothing(site):
    site.put("x", b"one")
    site.copy("x", f"{site.base}/x")
    row = site.service.find(m.FileFind(uri=f"{site.base}/x")).rows[0]
    site.put("x", b"two!")
    site.copy("x", f"{site.base}/x")
    with pytest.raises(StorageError, match=r"changed|stored"):
        Transfers(site.server, lambda count: None, Cancel()).download([(row, site.home / "y")])
    assert sorted(path.name for path in site.home.iterdir()) == ["x"]


def test_fc_05_a_cancelled_copy_leaves_nothing_behind(site):
    site.put("big", os.urandom(30_000_000))
    cancel, counts = Cancel(), []

    def progress(count):
        counts.append(count)
        cancel.cancel()

    with pytest.raises(CancelledError):
        Transfers(site.server, progress, cancel).upload([(site.home / "big", f"{site.base}/big")])
    with pytest.raises(NotFoundError):
        site.paths(f"{site.base}/big")
    site.copy("big", f"{site.base}/big")
    cancel = Cancel()
    row = site.service.find(m.FileFind(uri=f"{site.base}/big")).rows[0]
    with pytest.raises(CancelledError):
        Transfers(site.server, progress, cancel).download([(row, site.home / "part")])
    assert sorted(path.name for path in site.home.iterdir()) == ["big"]


def test_fc_06_large_files_go_in_parts_and_come_in_pieces(site, monkeypatch):
    monkeypatch.setattr("scitq.client.files._ONE_PUT", 1 << 20)
    data = os.urandom((33 << 20) + 5)
    site.put("large", data)
    site.copy("large", f"{site.base}/large")
    (site.home / "large").unlink()
    site.copy(f"{site.base}/large", "large")
    assert (site.home / "large").read_bytes() == data
    assert (m.FileEndParts in site.direct.seen) != (m.FileEndWrite in site.direct.seen)


def test_fc_05_what_other_tools_stored_in_parts_is_proved_by_its_parts(tmp_path, monkeypatch, s3_service, bucket):
    client, key = s3_service.client(), f"{tmp_path.name}/parts"
    with FlakyProxy.running(s3_service.endpoint) as proxy:
        site = Site(tmp_path, s3_service.rclone() | {"endpoint": f"http://{proxy.address}"}, f"{bucket}/{tmp_path.name}")
        monkeypatch.chdir(site.home)
        for sizes in ([5 << 20, 5 << 20, 100_000], [5 << 20, 6 << 20, 5 << 20]):
            pieces = [os.urandom(size) for size in sizes]
            upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
            parts = [
                {
                    "PartNumber": number,
                    "ETag": client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=piece)["ETag"],
                }
                for number, piece in enumerate(pieces, 1)
            ]
            client.complete_multipart_upload(Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts})
            site.copy(f"{site.base}/parts", "back")
            assert (site.home / "back").read_bytes() == b"".join(pieces)
            (site.home / "back").unlink()
            proxy.flip_down = 1
            with pytest.raises(StorageError, match="MD5"):
                site.copy(f"{site.base}/parts", "back")
            assert list(site.home.iterdir()) == []
        site.service.close()


def test_list_delete_and_check(site):
    for name in ("a/1", "a/2", "a/s/3", "b"):
        site.put(name, name.encode())
    site.copy(".", f"{site.base}/t")
    assert site.paths(f"{site.base}/t/") == {"a/": 0, "b": 1}
    assert site.paths(f"{site.base}/t", is_recursive=True) == {"a/1": 3, "a/2": 3, "a/s/3": 5, "b": 1}
    assert set(site.paths(f"{site.base}/t/*")) == {"a/", "b"}
    assert set(site.paths(f"{site.base}/t/a*/*")) == {"a/1", "a/2", "a/s/"}
    rows = site.service.list(m.FileList(uri=f"{site.base}/t/b")).rows
    assert rows[0].uri == f"{site.base}/t/b"
    assert rows[0].modified_ms > 1_600_000_000_000
    checked = site.service.check(m.FileCheck(uri=f"{site.base}/t/"))
    assert (checked.is_reachable, checked.files, checked.bytes) == (True, 4, 12)
    assert site.service.check(m.FileCheck(uri="st://")).is_reachable
    missing = site.service.check(m.FileCheck(uri=f"{site.base}/nothing"))
    assert not missing.is_reachable
    assert "nothing" in missing.detail

    def delete(uri, **options):
        return site.service.delete(m.FileDelete(uri=uri, **options)).count

    for uri in (f"{site.base}/t/a", f"{site.base}/t/a/"):
        with pytest.raises(UsageError, match="--recursive"):
            delete(uri)
    assert delete(f"{site.base}/t/a/*") == 2
    assert delete(f"{site.base}/t/b") == 1
    with pytest.raises(NotFoundError):
        delete(f"{site.base}/t/b")
    assert delete(f"{site.base}/t", is_recursive=True) == 1
    with pytest.raises(NotFoundError):
        site.paths(f"{site.base}/t/", is_recursive=True)


def test_the_web_the_workers_disks_and_actions_are_refused(site):
    for uri in ("https://h/x", "file:///etc/passwd", "nope://b/x"):
        with pytest.raises(UsageError, match="known are: disk, st"):
            site.service.find(m.FileFind(uri=uri))
    with pytest.raises(UsageError, match="actions"):
        site.service.find(m.FileFind(uri=f"{site.base}/x|untar"))
    with pytest.raises(UsageError, match="GET"):
        site.service.sign(m.FileSign(uris=[f"{site.base}/x"], method="DELETE"))


def test_a_copy_that_nobody_needs_is_called_off(site):
    for number in range(30):
        site.put(f"many/{number}", bytes(200_000))
    site.copy("many", f"{site.base}/many")
    state = site.service.copy(m.FileCopy(source=f"{site.base}/many/", target="disk://k/many"))
    state = site.service.copy_status(m.FileCopyStatus(copy_id=state.copy_id, at_most_s=10, is_cancelled=True))
    assert state.is_ended
    assert state.error_code in {"cancelled", ""}
    with pytest.raises(NotFoundError):
        site.service.copy_status(m.FileCopyStatus(copy_id="guessed"))


def test_a_relayed_write_survives_repeats_and_refuses_gaps_and_wrong_sums(site):
    service = site.service
    for crc, is_good in ((0x5BC2C3F4, False), (None, True)):
        write_id = service.write(m.FileWrite(uri=f"{site.base}/w", size=6)).write_id
        for offset, data in ((0, b"abc"), (0, b"abc"), (3, b"def"), (3, b"def")):
            service.write_chunk(m.FileWriteChunk(write_id=write_id, offset=offset, data=data))
        if is_good:
            service.end_write(m.FileEndWrite(write_id=write_id))
        else:
            with pytest.raises(StorageError, match="differ"):
                service.end_write(m.FileEndWrite(write_id=write_id, crc32=crc))
        with pytest.raises(NotFoundError):
            site.paths(f"{site.base}/w")
    write_id = service.write(m.FileWrite(uri=f"{site.base}/w", size=6)).write_id
    with pytest.raises(ScitqError, match="anew"):
        service.write_chunk(m.FileWriteChunk(write_id=write_id, offset=3, data=b"def"))
    import zlib

    service.write_chunk(m.FileWriteChunk(write_id=write_id, offset=0, data=b"abcdef"))
    for _ in range(2):
        service.end_write(m.FileEndWrite(write_id=write_id, crc32=zlib.crc32(b"abcdef")))
    assert site.paths(f"{site.base}/w") == {"w": 6}


def test_links_and_pipes_of_this_machine(site):
    site.put("d/real", b"1")
    (site.home / "d/link").symlink_to("real")
    (site.home / "d/folder").symlink_to(".")
    (site.home / "d/dangling").symlink_to("nothing")
    os.mkfifo(site.home / "d/pipe")
    copied = site.copy("d", f"{site.base}/l")
    assert site.paths(f"{site.base}/l/") == {"real": 1, "link": 1}
    assert len(copied.skipped) == 3
    with pytest.raises(UsageError):
        site.copy("d/pipe", f"{site.base}/p")
    assert threading.active_count() < 60
    assert Path("d/real").read_bytes() == b"1"
