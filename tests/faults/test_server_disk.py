"""The server's data folder: full, shared, on a network file system (contract SRV-5)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lib.desk import Desk
from tests.lib.site import Site

from scitq.broker.store.connection import Store, filesystem_name
from scitq.errors import ConflictError, UsageError


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    if os.getuid() != 0:
        pytest.skip("mounting needs root")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_refuses_clearly_loses_nothing_and_goes_on_when_there_is_room(
    small_disk: Path, tmp_path: Path, scitq_argv: list[str]
) -> None:
    with Site(tmp_path / "site", scitq_argv, settings={"data_dir": str(small_disk / "data")}) as site:
        site.agent()
        first = site.create("echo one")
        site.wait_status(first, "S")
        (small_disk / "ballast").write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize))
        made = []
        for _ in range(200):
            ran = site.run(["task", "create", "--container", "bare", "--command", "echo " + "x" * 60_000, "--hold"])
            if ran.status:
                break
            made.append(ran.id)
        assert ran.status == 1, ran
        assert "disk is full" in ran.err
        assert [row["id"] for row in site.tasks("--limit 0")] == [*reversed(made), first]
        (small_disk / "ballast").unlink()
        second = site.create("echo two")
        site.wait_status(second, "S")
        assert site.output(second) == "two\n"
        site.restart_server()
        assert site.output(first) == "one\n"


def test_srv_05_a_second_server_on_the_same_folder_is_refused(tmp_path: Path, scitq_argv: list[str]) -> None:
    with Site(tmp_path / "site", scitq_argv) as site:
        ran = site.fails(["serve", "--config", str(site.config)], 6)
        assert "another scitq server" in ran.err
        assert site.ok("ping").status == 0


def test_srv_05_network_file_systems_are_told_by_the_mount_that_holds_the_folder(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "30 22 0:40 / /home rw,relatime shared:1 - nfs4 server:/home rw\n"
        "31 30 0:41 / /home/me/local rw - xfs /dev/sdb1 rw\n"
        "32 22 0:42 / /scratch\\040space rw - lustre mds:/x rw\n"
        "33 22 0:43 / /mnt rw - fuse.sshfs host: rw\n"
    )
    told = {
        folder: filesystem_name(Path(folder), mounts) for folder in ("/home/me/x", "/home/me/local/x", "/var", "/scratch space/a", "/mnt/a")
    }
    assert told == {"/home/me/x": "nfs4", "/home/me/local/x": None, "/var": None, "/scratch space/a": "lustre", "/mnt/a": "fuse.sshfs"}


def test_srv_05_on_a_network_file_system_the_database_is_locked_or_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    with pytest.raises(UsageError, match="on a local disk"):
        Store(folder, on_network="refuse", assume_network=True)
    store = Store(folder, assume_network=True)
    try:
        assert not (folder / "scitq.db-shm").exists(), "the shared memory is what breaks there"
        with store.writer as tx:
            tx.execute("INSERT INTO user (name, password_hash, role, created_ms) VALUES ('u', 'x', 'user', 0)")
        with pytest.raises(ConflictError):
            Store(folder, assume_network=True)
    finally:
        store.close()
    desk = Desk(folder)
    assert desk.store.writer.execute("SELECT name FROM user").fetchall() == [("u",)]
    desk.store.close()
