"""The server's data folder: full, shared, on a network file system (contract SRV-5)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lib import mounts
from tests.lib.desk import Desk
from tests.lib.site import Shell, Site, clean_environment, wait_until

from scitq.broker.store.connection import Store
from scitq.errors import ConflictError, UsageError
from scitq.util import filesystems


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


def test_srv_02_kills_and_a_full_disk_in_the_middle_of_many_tasks_lose_nothing_and_run_nothing_twice(
    small_disk: Path, tmp_path: Path, scitq_argv: list[str]
) -> None:
    ran, batch, ballast = tmp_path / "ran", tmp_path / "batch.jsonl", small_disk / "ballast"
    ran.mkdir()
    lines = [
        {"container": "bare", "shell": "sh", "key": f"k{n}", "command": f"echo $SCITQ_TASK_ID >> {ran}/{n}; echo out {n}"}
        for n in range(300)
    ]
    batch.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["task", "create", "--from-file", str(batch), "--quiet"]

    def go_on_until(share: int) -> None:
        wait_until(lambda: len(list(ran.iterdir())) >= share, f"the run of {share}", 120)

    with Site(tmp_path / "site", scitq_argv, settings={"data_dir": str(small_disk / "data")}) as site:
        for _ in range(2):
            site.agent(concurrency=2, more="--prefetch 2")
        creating = site.start(words)
        site.restart_server(signal.SIGKILL)
        creating.communicate(timeout=120)
        ids = site.ok(words).ids
        for share in (20, 80, 140):
            go_on_until(share)
            site.restart_server(signal.SIGKILL)
        go_on_until(180)
        with contextlib.suppress(OSError):  # the server may be quicker
            ballast.write_bytes(b"x" * (os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize))
        held = ["task", "create", "--container", "bare", "--hold", "--command", "echo " + "x" * 60_000]
        assert any("disk is full" in site.run(held).err for _ in range(200))
        site.stop_server(signal.SIGKILL)
        ballast.unlink()
        site.start_server()
        site.ok(["task", "wait", "--id", f"{ids[0]}-{ids[-1]}"], deadline_s=180)
        assert len(set(ids)) == 300
        assert [row["status"] for row in site.tasks("--limit 0 --show-hidden") if row["status"] != "Z"] == ["S"] * 300
        assert [file.name for file in ran.iterdir() if len(file.read_text().split()) != 1] == []
        assert site.output(ids[-1]) == "out 299\n"


def test_srv_05_a_second_server_on_the_same_folder_is_refused(tmp_path: Path, scitq_argv: list[str]) -> None:
    with Site(tmp_path / "site", scitq_argv) as site:
        ran = site.fails(["serve", "--config", str(site.config)], 6)
        assert "another scitq server" in ran.err
        assert site.ok("ping").status == 0


def test_srv_05_network_file_systems_are_told_by_the_mount_that_holds_the_folder(tmp_path: Path) -> None:
    listed = tmp_path / "mountinfo"
    listed.write_text(
        "22 1 259:999 / / rw - ext4 /dev/sda1 rw\n"
        "30 22 0:9940 / /home rw,relatime shared:1 - nfs4 server:/home rw\n"
        "31 30 0:9941 / /home/me/local rw - xfs /dev/sdb1 rw\n"
        "32 22 0:9942 / /scratch\\040space rw - lustre mds:/x rw\n"
        "33 22 0:9943 / /mnt rw - fuse.sshfs host: rw\n"
        "34 33 0:9944 / /mnt/b rw - fuse.rclone s3: rw\n"
        "35 22 0:9945 / /a\\012b rw - 9p host rw\n"
    )
    expected = {
        "/home/me/x": "nfs4", "/home/me/local/x": "xfs", "/var/x": "ext4", "/scratch space/a": "lustre", "/a\nb/c": "9p",
        "/mnt/a": "fuse.sshfs", "/mnt/b/c": "fuse.rclone",
    }  # fmt: skip
    told = {folder: filesystems.kind_of(Path(folder), listed) for folder in expected}
    assert told == expected
    assert {kind for kind in told.values() if not filesystems.is_network(kind)} == {"ext4", "xfs"}


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


def test_srv_05_a_server_on_a_real_network_file_system(tmp_path: Path, scitq_argv: list[str]) -> None:
    with mounts.sshfs(tmp_path / "net", tmp_path / "behind") as net:
        data = net / "data"
        with Site(tmp_path / "site", scitq_argv, settings={"data_dir": str(data)}) as site:
            site.agent()
            first = site.create("echo one")
            assert site.wait_status(first, "SF") == "S"
            assert not (tmp_path / "behind/data/scitq.db-shm").exists(), "the shared memory is what breaks there"
            assert "another scitq server" in site.fails(["serve", "--config", str(site.config)], 6).err
            site.restart_server(signal.SIGKILL)
            second = site.create("echo two")
            assert site.wait_status(second, "SF") == "S"
            assert [row["id"] for row in site.tasks()] == [second, first]
            assert site.output(first) == "one\n"
            assert site.ok(["db", "backup", "--to", str(tmp_path / "backup.db")]).status == 0

            without_sockets = site.fails(["agent", "--config", str(site.config), "--work-dir", str(net / "work")], 1)
            assert "fuse.sshfs" in without_sockets.err
            assert "--work-dir" in without_sockets.err

            site.stop_server()
            site.write_config(network_filesystem="refuse")
            refused = site.fails(["serve", "--config", str(site.config)], 2)
            assert "fuse.sshfs" in refused.err
            assert "local disk" in refused.err


def test_srv_05_doctor_names_the_network_file_system_whatever_the_way_to_it(tmp_path: Path, scitq_argv: list[str]) -> None:
    shell = Shell(scitq_argv, clean_environment(tmp_path / "home"))

    def named(folder: Path) -> bool:
        found = shell.run(["doctor", "--no-server", "--data-dir", str(folder), "--json"]).json
        return any(one["what"] == "data folder" and "fuse.sshfs" in one["detail"] for one in found)

    with mounts.sshfs(tmp_path / "net", tmp_path / "behind") as net:
        (net / "deep").mkdir()
        (tmp_path / "link").symlink_to(net / "deep")
        (tmp_path / "bound").mkdir()
        subprocess.run(["mount", "--bind", net / "deep", tmp_path / "bound"], check=True)
        try:
            ways = (net, net / "deep", net / "not/yet", tmp_path / "link", tmp_path / "bound", tmp_path / "bound/not yet")
            assert [str(way) for way in ways if not named(way)] == []
            assert not named(tmp_path)
        finally:
            subprocess.run(["umount", "-l", tmp_path / "bound"], check=True)
