"""`scitq file`: the real command against a real server (contract, section 8); the storage is a folder, so the server relays."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lib.site import PASSWORD, Shell, Site, clean_environment, wait_until


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, scitq_argv: list[str]) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("file")
    (folder / "disk").mkdir()
    with Site(folder, scitq_argv, rclone={"My-st_1.x": {"type": "local", "root": str(folder / "disk")}}) as made:
        yield made


BASE = "My-st_1.x://bucket"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path


def disk(site: Site) -> Path:
    return site.folder / "disk" / "bucket"


def test_fc_01_the_guides_line(site, here):
    (here / "mybinary").write_bytes(b"#!/bin/sh\n" + os.urandom(5_000_000))
    ran = site.ok(f"file copy mybinary {BASE}/resource/mybinary", cwd=here)
    assert (ran.out, ran.err) == ("", "scitq: copied 1 file, 4.8 MiB\n")
    assert (disk(site) / "resource/mybinary").read_bytes() == (here / "mybinary").read_bytes()
    assert site.ok(f"file copy {BASE}/resource/mybinary back --json", cwd=here).json == {"files": 1, "bytes": 5_000_010, "skipped": []}
    assert (here / "back").read_bytes() == (here / "mybinary").read_bytes()
    assert site.ok(f"file copy {BASE}/resource/mybinary again --quiet", cwd=here).err == ""


def test_fc_02_all_four_directions_and_missing_sources(site, here):
    (here / "d/s").mkdir(parents=True)
    (here / "d/s/x").write_bytes(b"1")
    (here / "d/y").write_bytes(b"22")
    site.ok(f"file copy d/ {BASE}/four/", cwd=here)
    site.ok(f"file copy {BASE}/four/ down", cwd=here)
    site.ok(f"file copy {BASE}/four/* {BASE}/five", cwd=here)
    site.ok("file copy down ./copied", cwd=here)
    for folder in (here / "down", disk(site) / "five", here / "copied"):
        assert {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == {
            "s/x": b"1",
            "y": b"22",
        }
    for words in (f"absent {BASE}/x", f"{BASE}/absent x", f"{BASE}/absent {BASE}/x", "absent x", f"no*pe {BASE}/x"):
        ran = site.run(f"file copy {words}", cwd=here)
        assert ran.status in {1, 5}, ran
        assert "absent" in ran.err or "no*pe" in ran.err
    assert not (here / "x").exists()
    assert not (disk(site) / "x").exists()


def test_fc_03_nothing_is_configured_here_and_no_secret_comes(site, here):
    site.ok(f"file copy {site.config} {BASE}/config", cwd=here)
    stranger = Shell(site.argv, clean_environment(here / "home") | {"SCITQ_SERVER": f"127.0.0.1:{site.port}"})
    stranger.fails(f"file list {BASE}/", 3)
    token = stranger.ok("login --user admin --password-stdin --no-session", stdin=PASSWORD).out.strip()
    assert "config" in stranger.ok(f"file list {BASE}/", env={"SCITQ_TOKEN": token}).out
    for words in ("file:///etc/passwd", "https://127.0.0.1/x", "nope://b/x"):
        ran = site.fails(f"file copy {words} x", 2, cwd=here)
        assert "known are: My-st_1.x" in ran.err


def test_fc_04_odd_names(site, here):
    for name in ("with blank (1)", "é", "a:b", "My-st_1.x:", "-dash"):
        (here / name).write_bytes(name.encode())
        site.ok(["file", "copy", f"./{name}", f"{BASE}/odd/"], cwd=here)
    rows = site.ok(f"file list {BASE}/odd/ --json").json
    assert sorted(row["path"] for row in rows) == sorted(("with blank (1)", "é", "a:b", "My-st_1.x:", "-dash"))
    assert site.ok(["file", "list", f"{BASE}/odd/with blank (1)", "--quiet"]).out == f"{BASE}/odd/with blank (1)\n"


def test_fc_05_progress_on_a_terminal_only_and_ctrl_c_leaves_nothing(site, here):
    with (here / "big").open("wb") as file:
        file.truncate(400_000_000)
    leader, follower = pty.openpty()
    process = site.start(f"file copy big {BASE}/big", cwd=here, stderr=follower)
    os.close(follower)
    shown = b""
    while b"MiB" not in shown and b"MB" not in shown:
        shown += os.read(leader, 4096)
    process.send_signal(signal.SIGINT)
    try:
        while os.read(leader, 4096):
            pass
    except OSError:
        pass
    os.close(leader)
    assert process.communicate(timeout=60)[0] == b""
    assert process.returncode == 130
    wait_until(lambda: not list(disk(site).glob("*big*")) and not list(disk(site).glob(".scitq-*")), "nothing left")
    (disk(site) / "back").unlink(missing_ok=True)
    with (disk(site) / "huge").open("wb") as file:
        file.truncate(400_000_000)
    process = site.start(f"file copy {BASE}/huge huge", cwd=here)
    wait_until(lambda: list(here.glob(".scitq-*.part")) or process.poll() is not None, "the copy began")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, b"Traceback" in err) == (130, b"", False)
    assert sorted(path.name for path in here.iterdir()) == ["big"]
    (disk(site) / "huge").unlink()


def test_list_delete_and_check(site, here):
    (here / "t/s").mkdir(parents=True)
    (here / "t/s/1").write_bytes(b"1")
    (here / "t/2").write_bytes(b"22")
    site.ok(f"file copy t {BASE}/t", cwd=here)
    lines = site.ok(f"file list {BASE}/t/").out.splitlines()
    assert [line.split()[-1] for line in lines] == ["PATH", "2", "s/"]
    rows = site.ok(f"file list {BASE}/t --recursive --json").json
    assert [(row["path"], row["size"], row["uri"]) for row in rows] == [("2", 2, f"{BASE}/t/2"), ("s/1", 1, f"{BASE}/t/s/1")]
    assert rows[0]["modified_ms"] > 1_200_000_000_000
    assert site.ok(["file", "list", f"{BASE}/t/*", "--quiet"]).out == f"{BASE}/t/2\n{BASE}/t/s/\n"
    site.fails(f"file list {BASE}/nothing/", 5)
    checked = site.ok(f"file check {BASE}/t/ --json").json
    assert (checked[0]["where"], checked[0]["is_reachable"], checked[0]["files"]) == ("server", True, 2)
    site.fails(f"file check {BASE}/nothing", 1)
    site.fails(f"file delete {BASE}/t", 2)
    assert site.ok(f"file delete {BASE}/t --recursive --json").json == {"deleted": 2}
    site.fails(f"file delete {BASE}/t/2", 5)
    site.fails(f"file copy {BASE}/t/2 gone", 5)
    site.fails("file copy only-one", 2)


def test_fc_06_a_copy_through_the_server_does_not_slow_its_loop(site, here):
    with (here / "large").open("wb") as file:
        file.truncate(200_000_000)
    process = site.start(f"file copy large {BASE}/large", cwd=here, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    answered = 0
    begun = time.monotonic()
    while process.poll() is None and time.monotonic() - begun < 60:
        json.loads(site.ok("status --json").out)
        answered += 1
    assert process.wait(60) == 0
    assert answered
    assert (disk(site) / "large").stat().st_size == 200_000_000
    (disk(site) / "large").unlink()
