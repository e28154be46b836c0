"""Results taken from real output folders, plain and hostile, to a storage of type local."""

from __future__ import annotations

import os
import socket
import tempfile
import threading
from pathlib import Path

import pytest

from scitq.agent import outputs
from scitq.agent.folders import DataContext, TaskFolders
from scitq.agent.steps import ship
from scitq.errors import CancelledError, StorageError
from scitq.model.task import TaskSpec
from scitq.protocol.messages.agent import Assignment
from scitq.storage.base import Cancel
from scitq.util import files


class Worker:
    def __init__(self, root):
        self.target = root / "storage"
        self.target.mkdir()
        self.context = DataContext({"st": {"type": "local", "root": str(self.target)}}, {}, root / "work")
        self.folders = TaskFolders(root / "work" / "tasks" / "1")
        self.folders.make()
        self.out = self.folders.output
        self.seen = []

    def assignment(self, **spec):
        return Assignment(task_id=7, attempt=1, spec=TaskSpec(container="alpine", command="true", **spec))

    def ship(self, succeeded=True, cancel=None, **spec):
        def progress(done, total):
            self.seen.append((done, total))

        spec = spec or {"output": "st://b/out"}
        return ship.ship(self.assignment(**spec), self.folders, self.context, progress, cancel or Cancel(), succeeded)

    def is_complete(self, **spec):
        return ship.is_complete(self.assignment(skip_if_exists=True, **spec), self.context, Cancel())

    def stored(self, folder="b/out"):
        root = self.target / folder
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def worker(tmp_path):
    return Worker(tmp_path)


def test_out_01_out_02_everything_is_uploaded_and_other_files_stay(worker):
    names = ["plain", ".hidden", "a/b/c", "empty", "with blank", "é", "-dash", "new\nline", "%20", "x|y", "*", "a/.d/e"]
    for name in names:
        (worker.out / name).parent.mkdir(parents=True, exist_ok=True)
        (worker.out / name).write_bytes(b"" if name == "empty" else name.encode())
    (worker.out / "nothing").mkdir()
    (worker.target / "b/out").mkdir(parents=True)
    (worker.target / "b/out/other").write_bytes(b"stays")
    shipped = worker.ship(succeeded=False)
    assert worker.stored() == {name: b"" if name == "empty" else name.encode() for name in names} | {"other": b"stays"}
    assert shipped == ship.Shipped(sum(len(name.encode()) for name in names if name != "empty"), [])
    assert worker.seen[-1] == (shipped.uploaded_bytes, shipped.uploaded_bytes)


def test_out_06_without_output_nothing_is_done(worker):
    (worker.out / "x").write_bytes(b"1")
    assert worker.ship(retry_on=()) == ship.Shipped(0, [])
    assert not ship.has_output(worker.assignment().spec, succeeded=True)
    assert not ship.has_output(worker.assignment(publish="st://b/p/").spec, succeeded=False)


def test_publish_only_on_success(worker):
    (worker.out / "x").write_bytes(b"1")
    spec = {"output": "st://b/out", "publish": "st://b/pub/"}
    worker.ship(succeeded=False, **spec)
    assert (worker.stored(), worker.stored("b/pub")) == ({"x": b"1"}, {})
    worker.ship(succeeded=True, **spec)
    assert worker.stored("b/pub") == {"x": b"1"}


def test_out_08_links_inside_give_content_and_none_is_followed_out(worker, tmp_path):
    (worker.out / "real").mkdir()
    (worker.out / "real/x").write_bytes(b"1")
    other = tmp_path / "work" / "tasks" / "2"
    other.mkdir()
    (other / "secret").write_bytes(b"other task's")
    links = {
        "file": "real/x",
        "folder": "real",
        "absolute": "/output/real/x",
        "host": str(worker.out / "real" / "x"),
        "real/up": "../real/x",
        "twice": "file",
        "shadow": "/etc/shadow",
        "etc": "/etc",
        "up": "../../2/secret",
        "around": "real/../../output/real/x",
        "dangling": "nothing",
        "loop": "loop",
        "self": ".",
        "real/parent": "..",
        "input": "/input/x",
        "hidden": "/output/../etc/hostname",
        "through": "etc/hostname",
    }
    for name, target in links.items():
        (worker.out / name).symlink_to(target)
    warnings = "\n".join(worker.ship().warnings)
    inside = {"real/x", "real/up", "file", "folder/x", "folder/up", "absolute", "host", "twice"}
    assert worker.stored() == dict.fromkeys(inside, b"1")
    for name in ("shadow", "etc", "up", "around", "input", "hidden", "through"):
        assert f"/output/{name} is a link to the outside" in warnings
    for name in ("dangling", "loop"):
        assert f"/output/{name} is a link to nothing" in warnings
    for name in ("self", "real/parent"):
        assert f"/output/{name} is a link to a folder that holds it" in warnings


def test_out_08_fifos_sockets_and_devices_are_skipped_without_hanging(worker):
    (worker.out / "x").write_bytes(b"1")
    os.mkfifo(worker.out / "fifo")
    here = Path.cwd()
    os.chdir(worker.out)
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("sock")
    finally:
        os.chdir(here)
    shipped = worker.ship()
    assert worker.stored() == {"x": b"1"}
    assert sorted(shipped.warnings) == ["/output/fifo is a FIFO and is left out", "/output/sock is a socket and is left out"]


def test_out_07_closed_files_and_folders_of_ours_are_uploaded(worker):
    (worker.out / "d").mkdir()
    (worker.out / "d/x").write_bytes(b"1")
    (worker.out / "d/x").chmod(0)
    (worker.out / "d").chmod(0o555)
    worker.ship()
    assert worker.stored() == {"d/x": b"1"}


@pytest.mark.skipif(os.geteuid() != 0, reason="root puts on the rights of another user")
def test_out_07_a_folder_that_may_be_read_but_not_entered_is_opened_again():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # which every user may enter
        out = Path(folder)
        (out / "d").mkdir()
        (out / "d/x").write_bytes(b"1")
        (out / "d").chmod(0o444)
        for path in (out, out / "d", out / "d/x"):
            os.chown(path, 12345, 12345)
        child = os.fork()
        if not child:
            try:
                os.setgid(12345)
                os.setuid(12345)
                os._exit([file[1] for file in outputs.walk(out).files] != ["d/x"])
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0


def test_out_09_one_that_fails_does_not_hide_the_others_and_the_files_stay(worker):
    for name in "abc":
        (worker.out / name).write_bytes(name.encode())
    (worker.target / "b/out/b").mkdir(parents=True)
    with pytest.raises(StorageError, match=r"1 of the results.*st://b/out/b"):
        worker.ship()
    assert worker.stored() == {"a": b"a", "c": b"c"}
    assert sorted(path.name for path in worker.out.iterdir()) == ["a", "b", "c"]
    (worker.target / "b/out/b").rmdir()
    worker.ship()
    assert worker.stored() == {name: name.encode() for name in "abc"}


def test_names_that_are_no_utf8_are_uploaded_escaped_with_a_warning(worker):
    (worker.out / os.fsdecode(b"caf\xe9")).write_bytes(b"1")
    assert "caf%E9" in worker.ship().warnings[0]
    assert worker.stored() == {"caf%E9": b"1"}
    (worker.out / "caf%E9").write_bytes(b"2")
    with pytest.raises(StorageError, match="two files"):
        worker.ship()


def test_out_02_a_tree_deeper_than_recursion_goes(worker):
    here = os.open(worker.out, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    found = outputs.walk(worker.out)
    assert ([file[1] for file in found.files], found.failures) == (["d/" * 1200 + "x"], [])
    files.remove_tree(worker.out)
    assert not worker.out.exists()


def test_out_08_links_that_multiply_what_is_there_end_in_an_error(worker, monkeypatch):
    monkeypatch.setattr(outputs, "_MOST_COPIES", 1000)
    for level in range(7):
        (worker.out / f"l{level}").mkdir()
        for link in range(10):
            (worker.out / f"l{level}" / str(link)).symlink_to(f"../l{level + 1}")
    (worker.out / "l7").mkdir()
    with pytest.raises(StorageError, match="links to folders make more than"):
        worker.ship()


def test_a_cancelled_upload_stops(worker):
    (worker.out / "x").write_bytes(b"1")
    cancel = Cancel()
    cancel.cancel()
    with pytest.raises(CancelledError):
        worker.ship(cancel=cancel)


def test_skip_if_exists_believes_only_a_mark_written_last_and_the_files_it_names(worker):
    spec = {"output": "st://b/out", "publish": "st://b/pub"}
    (worker.out / "x").write_bytes(b"12")
    (worker.out / ".scitq-complete.json").write_bytes(b"forged by the task")
    assert not worker.is_complete(**spec)
    worker.ship(succeeded=False, skip_if_exists=True, **spec)
    assert not worker.is_complete(**spec)
    worker.ship(skip_if_exists=True, **spec)
    assert worker.is_complete(**spec)
    assert not ship.is_complete(worker.assignment(**spec), worker.context, Cancel())
    (worker.target / "b/pub/x").write_bytes(b"1")
    assert not worker.is_complete(**spec)
    (worker.target / "b/pub/x").unlink()
    (worker.target / "b/pub/x").mkdir()
    with pytest.raises(StorageError):
        worker.ship(skip_if_exists=True, **spec)
    assert not worker.is_complete(publish="st://b/pub")
    assert worker.is_complete(output="st://b/out")
    (worker.out / "x").write_bytes(b"34")
    worker.ship(succeeded=False, output="st://b/out")
    assert not worker.is_complete(output="st://b/out")
    worker.ship(skip_if_exists=True, output="st://b/out")
    assert worker.is_complete(output="st://b/out")
    worker.ship(succeeded=False, skip_if_exists=True, output="st://b/out")
    assert not worker.is_complete(output="st://b/out")


def test_many_files_go(worker):
    for number in range(2000):
        (worker.out / str(number)).write_bytes(b"1")
    before = threading.active_count()  # other tests' pools may still be there
    assert worker.ship().uploaded_bytes == 2000
    assert len(worker.stored()) == 2000
    assert threading.active_count() < before + 20
