"""Archives and compressed files, plain and hostile, against the real file system."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
import zstandard

from scitq.agent.actions import chain
from scitq.agent.actions.content import Content, kind_of
from scitq.agent.actions.gunzip import unzipped_name
from scitq.agent.actions.limits import Limits, Meter
from scitq.errors import CancelledError, DiskFullError, StorageError
from scitq.model.uri import Uri
from scitq.storage.base import Cancel

PACKERS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def member(name, data=b"", *, kind=tarfile.REGTYPE, mode=0o644, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.size = kind, mode, link, len(data)
    return info, data


def make_tar(*members, **options):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def make_zip(files, **options):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, **options) as opened:
        for info, data in files:
            opened.writestr(info, data)
    return buffer.getvalue()


def act(tmp_path, files, actions="untar", limits=None, cancel=None, room=None):
    """Carry out `actions` on {name: bytes}; returns {path: bytes or link target} of the result."""
    uri = Uri.parse(f"s3://b/x|{actions}")
    work = tmp_path / "work"
    folder = work / "data"
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    meter = Meter(str(uri), limits or Limits(), cancel or Cancel(), room or (lambda _count: None))
    result = chain.apply(chain.steps_of(uri.actions), folder, meter)
    return {
        name: str((result / name).readlink()) if (result / name).is_symlink() else (result / name).read_bytes()
        for name in chain.everything_below(result)
        if not stat.S_ISDIR(os.lstat(result / name).st_mode)
    }


def mode_of(tmp_path, name):
    return stat.S_IMODE(os.lstat(tmp_path / "work" / "data.0" / name).st_mode)


@pytest.mark.parametrize("suffix", PACKERS)
def test_unt_01_unt_02_every_compression_is_told_by_content_and_consumed(tmp_path, suffix):
    big = os.urandom(3_000_000)
    data = PACKERS[suffix](make_tar(member("a/b.txt", b"hello"), member("empty"), member("big", big), member("run", b"x", mode=0o755)))
    assert act(tmp_path, {"misleading.name": data}) == {"a/b.txt": b"hello", "empty": b"", "big": big, "run": b"x"}
    assert not (tmp_path / "work" / "data" / "misleading.name").exists()


def test_unt_01_zip_keeps_modes_links_and_folders(tmp_path):
    run = zipfile.ZipInfo("bin/run")
    run.external_attr = (stat.S_IFREG | 0o755) << 16
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    windows = zipfile.ZipInfo("dos\\x.txt")
    windows.create_system, windows.filename = 0, "dos\\x.txt"
    data = make_zip([(run, b"#!"), (link, b"bin/run"), (windows, b"w"), ("folder/", b""), ("plain", b"p")])
    assert act(tmp_path, {"x.zip": data}) == {"bin/run": b"#!", "link": "bin/run", "dos/x.txt": b"w", "plain": b"p"}
    assert mode_of(tmp_path, "bin/run") == 0o755
    assert (tmp_path / "work" / "data.0" / "folder").is_dir()


def test_res_03_programs_in_a_zip_that_tells_no_modes_become_executable(tmp_path):
    members = [zipfile.ZipInfo(name) for name in ("dos\\run", "dos\\text", "unix")]
    for info in members[:2]:
        info.create_system, info.external_attr = 0, 0x20
    members[2].external_attr = 0o640 << 16
    act(tmp_path, {"x.zip": make_zip(zip(members, (b"#!/bin/sh\n", b"text", b"#!/bin/sh\n"), strict=True))})
    modes = [(tmp_path / "work/data.0" / name).stat().st_mode & 0o777 for name in ("dos/run", "dos/text", "unix")]
    assert modes == [0o755, 0o644, 0o640]


def test_unt_03_a_member_with_the_archives_own_name_survives(tmp_path):
    assert act(tmp_path, {"x.tar": make_tar(member("x.tar", b"inner"))}) == {"x.tar": b"inner"}


def test_unt_05_modes_are_kept_and_setuid_is_dropped(tmp_path):
    data = make_tar(
        member("run", b"x", mode=0o755),
        member("suid", b"x", mode=0o6755),
        member("closed", b"x", mode=0o400),
        member("dir", kind=tarfile.DIRTYPE, mode=0o555),
        member("dir/in", b"y"),
    )
    act(tmp_path, {"x.tar": data})
    assert [mode_of(tmp_path, name) for name in ("run", "suid", "closed", "dir")] == [0o755, 0o755, 0o600, 0o755]


HOSTILE = {
    "parent": [member("../x", b"!")],
    "deep parent": [member("a/../../x", b"!")],
    "absolute": [member("/tmp/scitq-evil", b"!")],
    "drive": [member("C:\\x", b"!")],
    "drive slash": [member("c:/x", b"!")],
    "backslash parent": [member("..\\x", b"!")],
    "backslash root": [member("\\x", b"!")],
    "link then file": [member("l", kind=tarfile.SYMTYPE, link="/tmp"), member("l/scitq-evil", b"!")],
    "relative link then file": [member("d/l", kind=tarfile.SYMTYPE, link="../.."), member("d/l/scitq-evil", b"!")],
    "chain of links": [
        member("a", kind=tarfile.SYMTYPE, link="."),
        member("a/b", kind=tarfile.SYMTYPE, link=".."),
        member("b/scitq-evil", b"!"),
    ],
    "link swapped after use": [
        member("real/ok", b"1"),
        member("a", kind=tarfile.SYMTYPE, link="real"),
        member("a/ok2", b"1"),
        member("a", kind=tarfile.SYMTYPE, link=".."),
        member("a/scitq-evil", b"!"),
    ],
    "hard link outside": [member("h", kind=tarfile.LNKTYPE, link="/etc/hostname")],
    "hard link up": [member("h", kind=tarfile.LNKTYPE, link="../../../etc/hostname")],
    "hard link through a link": [
        member("l", kind=tarfile.SYMTYPE, link="/etc"),
        member("h", kind=tarfile.LNKTYPE, link="l/hostname"),
    ],
    "hard link to nothing": [member("h", kind=tarfile.LNKTYPE, link="absent")],
    "device": [member("d", kind=tarfile.CHRTYPE)],
    "fifo": [member("d", kind=tarfile.FIFOTYPE)],
    "file under a file": [member("f", b"1"), member("f/g", b"2")],
    "file over a folder": [member("f/g", b"2"), member("f", b"1")],
    "long name": [member("n" * 256, b"1")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_unt_04_hostile_archives_are_refused_and_nothing_lands_outside(tmp_path, name):
    (tmp_path / "work").mkdir()
    with pytest.raises(StorageError, match="s3://b/x"):
        act(tmp_path, {"x.tar": make_tar(*HOSTILE[name])})
    assert [path.name for path in tmp_path.iterdir()] == ["work"]
    assert {path.name for path in (tmp_path / "work").iterdir()} <= {"data", "data.0", "data.0.unpack"}
    assert not Path("/tmp/scitq-evil").exists()
    assert not list(tmp_path.rglob("scitq-evil"))


@pytest.mark.parametrize("name", ["../x", "/abs", "a/../../x", "..\\x"])
def test_unt_04_hostile_zip_names_are_refused(tmp_path, name):
    with pytest.raises(StorageError, match="refused"):
        act(tmp_path, {"x.zip": make_zip([(zipfile.ZipInfo(name), b"!")])})


def test_unt_04_links_inside_are_followed_and_kept(tmp_path):
    data = make_tar(
        member("lib/x", b"1"),
        member("lib64", kind=tarfile.SYMTYPE, link="lib"),
        member("lib64/y", b"2"),
        member("hard", kind=tarfile.LNKTYPE, link="lib/x"),
        member("out", kind=tarfile.SYMTYPE, link="/etc/passwd"),
    )
    assert act(tmp_path, {"x.tar": data}) == {"lib/x": b"1", "lib/y": b"2", "lib64": "lib", "hard": b"1", "out": "/etc/passwd"}


def test_a_later_member_replaces_an_earlier_one_and_never_writes_through_its_link(tmp_path):
    data = make_tar(member("x", kind=tarfile.SYMTYPE, link="/tmp/scitq-evil"), member("x", b"2"), member("./", kind=tarfile.DIRTYPE))
    assert act(tmp_path, {"x.tar": data}) == {"x": b"2"}
    assert not Path("/tmp/scitq-evil").exists()


GOOD = make_tar(member("a", os.urandom(300_000)), member("b", b"2"))
DAMAGED = {
    "not an archive": b"just text, longer than a header" * 40,
    "empty file": b"",
    "cut within a member": GOOD[:200_000],
    "cut between members": GOOD[: 512 + 300_032],
    "cut end mark": GOOD[: 512 + 300_032 + 1024],
    "corrupt second header": GOOD[: 512 + 300_032] + b"?" * 512 + GOOD[512 + 300_032 + 512 :],
    "gzip of text": gzip.compress(b"text" * 1000),
    **{f"cut {suffix}": packer(GOOD)[:-20] for suffix, packer in PACKERS.items() if suffix},
    "damaged gz": gzip.compress(GOOD)[:1000] + b"\0" * 50 + gzip.compress(GOOD)[1050:],
    "bad gz checksum": gzip.compress(GOOD)[:-8] + b"\0" * 8,
    "zip cut": make_zip([("a", os.urandom(5000))])[:-30],
    "zip damaged": (lambda data: data[:100] + bytes(50) + data[150:])(make_zip([("a", os.urandom(5000))])),
    "huge header": make_tar(member("a", b"1" * 3_000_000, kind=tarfile.GNUTYPE_LONGNAME)),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_unt_06_damaged_archives_fail_with_a_text_that_names_them(tmp_path, name):
    with pytest.raises(StorageError, match=r"s3://b/x.*(corrupt|truncated|no archive|no tar|not)"):
        act(tmp_path, {"x.tar": DAMAGED[name]})


def test_unt_06_encrypted_zip_is_told(tmp_path):
    data = bytearray(make_zip([("a", b"secret")]))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    with pytest.raises(StorageError, match="encrypted"):
        act(tmp_path, {"x.zip": bytes(data)})


def test_unt_06_a_zip_whose_members_share_their_bytes_is_refused_before_anything_is_written(tmp_path):
    data = make_zip([("a", os.urandom(100_000))])
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    entry = data[start:end]
    entries = b"".join(entry.replace(b"a", bytes([letter]), 1) for letter in range(97, 107))
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 10, 10, len(entries), start, 0)
    with pytest.raises(StorageError, match="over each other"):
        act(tmp_path, {"x.zip": data[:start] + entries + tail})
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file() and path.name != "x.zip"]


def test_unt_06_of_several_files_the_bad_one_is_named(tmp_path):
    good = make_tar(member("x", b"1"))
    with pytest.raises(StorageError, match=r"b/bad\.tar is no archive"):
        act(tmp_path / "1", {"a.tar": good, "b/bad.tar": b"text"})
    with pytest.raises(StorageError, match=r"\|gunzip: y is not compressed"):
        act(tmp_path / "2", {"x.gz": gzip.compress(b"1"), "y": b"text"}, "gunzip")


def test_unt_06_bombs_stop_at_the_limits(tmp_path):
    with pytest.raises(StorageError, match="max_extract_files"):
        act(tmp_path / "1", {"x": make_tar(*[member(str(number)) for number in range(20)])}, limits=Limits(most_files=10))
    with pytest.raises(StorageError, match="max_extract_size"):
        act(tmp_path / "2", {"x": gzip.compress(make_tar(member("z", bytes(5_000_000))))}, limits=Limits(most_bytes=1_000_000))
    with pytest.raises(StorageError, match="max_extract_size"):
        act(tmp_path / "3", {"x.gz": gzip.compress(bytes(5_000_000))}, "gunzip", limits=Limits(most_bytes=1_000_000))
    meter = Meter("s3://b/x", Limits(most_ratio=10), Cancel())
    meter.begin(1 << 20)
    meter.add_bytes(1 << 29)
    with pytest.raises(StorageError, match="10 times"):
        meter.add_bytes(1 << 30)


def test_unt_06_room_is_asked_for_before_it_is_used_and_a_refusal_ends_it(tmp_path):
    def refuse(_count):
        raise DiskFullError("no room")

    with pytest.raises(DiskFullError, match="no room"):
        act(tmp_path, {"x": GOOD}, room=refuse)


def test_extraction_is_cancelled(tmp_path):
    cancel = Cancel()
    cancel.cancel()
    with pytest.raises(CancelledError):
        act(tmp_path, {"x": GOOD}, cancel=cancel)


def test_gz_01_names(tmp_path):
    assert [unzipped_name(name) for name in ("x.gz", "x", "x.tgz", "X.GZ", ".gz")] == ["x", "x", "x.tar", "X", ".gz"]
    assert act(tmp_path, {"a/x.gz": gzip.compress(b"1"), "y": gzip.compress(b"2")}, "gunzip") == {"a/x": b"1", "y": b"2"}


def test_gz_02_all_members_are_unpacked(tmp_path):
    many = b"".join(gzip.compress(bytes([65 + number]) * 70_000) for number in range(5)) + gzip.compress(b"")
    assert act(tmp_path, {"x.gz": many}, "gunzip") == {"x": b"".join(bytes([65 + number]) * 70_000 for number in range(5))}


@pytest.mark.parametrize(
    "data",
    [b"text", b"", gzip.compress(b"1" * 9999)[:-9], gzip.compress(os.urandom(99))[:-1]],
    ids=["text", "empty", "end missing", "last byte missing"],
)
def test_gz_02_truncated_or_not_gzip_fails(tmp_path, data):
    with pytest.raises(StorageError, match=r"s3://b/x.*(not compressed|truncated)"):
        act(tmp_path, {"x.gz": data}, "gunzip")


def test_uri_04_chains_run_in_the_order_written(tmp_path):
    inner = gzip.compress(make_tar(member("f.gz", gzip.compress(b"deep"))))
    assert act(tmp_path / "1", {"x.tgz": inner}, "gunzip|untar|gunzip") == {"f": b"deep"}
    assert list(act(tmp_path / "2", {"x.tgz": inner}, "mv:x|untar|mv:y")) == ["f.gz"]


def test_uri_05_actions_hold_for_each_file_in_its_own_folder(tmp_path):
    files = {"p/a.tar": make_tar(member("x", b"1")), "q/a.tar": make_tar(member("x", b"2"), member("s/y", b"3"))}
    assert act(tmp_path, files) == {"p/x": b"1", "q/x": b"2", "q/s/y": b"3"}


def test_unt_07_two_archives_with_one_name_in_them_collide(tmp_path):
    with pytest.raises(StorageError, match=r"'a.tar' and 'b.tar' would both give 'x'.*mv:"):
        act(tmp_path, {"a.tar": make_tar(member("x", b"1")), "b.tar": make_tar(member("x", b"2"))})
    with pytest.raises(StorageError, match=r"would both give 'x'"):
        act(tmp_path / "2", {"x": gzip.compress(b"1"), "x.gz": gzip.compress(b"2")}, "gunzip")


def test_res_03_programs_become_executable(tmp_path):
    for name, data in {"elf": b"\x7fELF...", "script": b"#!/bin/sh\n", "data": b"text", "empty": b""}.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(0o644)
    chain.make_programs_executable(tmp_path)
    assert [os.access(tmp_path / name, os.X_OK) for name in ("elf", "script", "data", "empty")] == [True, True, False, False]


def test_old_tar_formats_and_sparse_files_are_read(tmp_path):
    v7 = make_tar(member("old", b"1"), format=tarfile.USTAR_FORMAT)
    assert kind_of(v7[:512]) is Content.TAR
    long = "d/" * 60 + "x"
    for number, layout in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        data = make_tar(member(long, b"1"), member("é\n", b"2"), format=layout)
        assert act(tmp_path / str(number), {"t": data}) == {long: b"1", "é\n": b"2"}


def test_names_that_are_no_utf8_survive(tmp_path):
    data = make_tar(member("caf\udce9", b"1"), format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape")
    assert act(tmp_path, {"t": data}) == {"caf\udce9": b"1"}
