"""The start of the one file: where it unpacks, what it checks, what it says (contract CLI-9; docs/install.md)."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.lib.onefile import TRAILER, Run, in_mounts, renamed, versions

pytestmark = pytest.mark.xdist_group("launcher")


def test_it_is_small_and_unpacks_once_into_the_users_cache(exe: Path, home: Path, run: Run) -> None:
    assert exe.stat().st_size < 60_000_000
    answer = run([exe, "--version"])
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("scitq ")
    (name,) = versions(home / ".cache/scitq")
    folder = home / ".cache/scitq/app" / name
    inode = (folder / "scitq").stat().st_ino
    assert folder.stat().st_mode & 0o777 == 0o700
    assert run([exe, "--version"]).stdout == answer.stdout
    assert (folder / "scitq").stat().st_ino == inode


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SCITQ_CACHE": "{tmp}/own", "XDG_CACHE_HOME": "{tmp}/xdg"}, "own/app"),
        ({"XDG_CACHE_HOME": "{tmp}/xdg"}, "xdg/scitq/app"),
        ({"HOME": ""}, "tmp/scitq-{uid}/.cache/scitq/app"),
        ({"HOME": "/nonexistent"}, "tmp/scitq-{uid}/.cache/scitq/app"),
    ],
)
def test_the_place_follows_the_environment(exe: Path, tmp_path: Path, run: Run, variables: dict[str, str], expected: str) -> None:
    answer = run([exe, "--version"], **{name: value.format(tmp=tmp_path) for name, value in variables.items()})
    assert answer.returncode == 0, answer.stderr
    assert len(list((tmp_path / expected.format(uid=os.getuid())).glob("[0-9]*"))) == 1


def test_many_starts_at_once_leave_one_whole_folder(exe: Path, home: Path, environment: dict[str, str]) -> None:
    started = [subprocess.Popen([exe, "--version"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(6)]
    for one in started:
        out, err = one.communicate(timeout=120)
        assert (one.returncode, err) == (0, b"")
        assert out.startswith(b"scitq ")
    assert len(versions(home / ".cache/scitq")) == 1


def test_a_start_killed_in_the_middle_is_made_good_by_the_next(exe: Path, home: Path, environment: dict[str, str], run: Run) -> None:
    app = home / ".cache/scitq/app"
    first = subprocess.Popen([exe, "--version"], env=environment, stdout=subprocess.DEVNULL)
    while first.poll() is None and not list(app.glob(".new-*/_internal")):
        pass
    first.kill()
    first.wait()
    assert run([exe, "--version"]).returncode == 0
    (name,) = versions(home / ".cache/scitq")
    assert not name.startswith(".")


def test_what_was_changed_or_swept_is_put_back(exe: Path, home: Path, run: Run) -> None:
    run([exe, "--version"])
    (name,) = versions(home / ".cache/scitq")
    folder = home / ".cache/scitq/app" / name
    libc, archive = folder / "_internal/libc.so.6", folder / "_internal/base_library.zip"
    before = {path: path.read_bytes() for path in (libc, archive)}

    libc.unlink()
    os.truncate(archive, 100)
    assert run([exe, "--version"]).returncode == 0
    assert {path: path.read_bytes() for path in before} == before

    changed = bytearray(before[archive])
    changed[1000] ^= 255
    archive.write_bytes(changed)  # the size stays
    later_ns = time.time_ns() + 1_000_000_000
    os.utime(archive, ns=(later_ns, later_ns))
    assert run([exe, "--version"]).returncode == 0
    assert archive.read_bytes() == before[archive]

    shutil.rmtree(folder / "_internal/botocore", ignore_errors=True)
    (folder / ".lock").unlink()
    assert run([exe, "--version"]).returncode == 0
    assert (folder / "_internal/botocore").is_dir()
    assert versions(home / ".cache/scitq") == [name]


def test_an_older_version_goes_when_nobody_runs_it(exe: Path, home: Path, tmp_path: Path, run: Run) -> None:
    older, newer = (renamed(exe, tmp_path / f"scitq-{mark}", mark * 4) for mark in "xy")
    assert run([older, "--version"]).returncode == 0
    (first,) = versions(home / ".cache/scitq")
    lock = os.open(home / ".cache/scitq/app" / first / ".lock", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_SH)  # as a daemon of that version holds it
    assert run([newer, "--version"]).returncode == 0
    assert len(versions(home / ".cache/scitq")) == 2
    os.close(lock)
    newer.unlink()
    renamed(exe, newer, "zzzz")
    assert run([newer, "--version"]).returncode == 0
    (name,) = versions(home / ".cache/scitq")
    assert name.endswith("zzzz")


def test_what_killed_starts_left_is_removed(exe: Path, home: Path, run: Run) -> None:
    app = home / ".cache/scitq/app"
    (app / ".new-host-1-a/_internal").mkdir(parents=True, mode=0o700)
    (app / ".new-host-1-a/.lock").touch()
    (app / ".old-1-0.0.1-abc").mkdir()
    (app / ".old-1-0.0.1-abc/.lock").touch()
    app.chmod(0o700)
    assert run([exe, "--version"]).returncode == 0
    (name,) = versions(home / ".cache/scitq")
    assert not name.startswith(".")


def test_a_folder_that_others_may_write_in_is_refused(exe: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "cache/app").mkdir(parents=True)
    (tmp_path / "cache/app").chmod(0o777)
    answer = run([exe, "--version"], SCITQ_CACHE=str(tmp_path / "cache"))
    assert answer.returncode == 1
    assert "others may write in it" in answer.stderr
    assert answer.stdout == ""


def test_a_link_instead_of_the_folder_is_refused(exe: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "cache/app").symlink_to(tmp_path / "elsewhere")
    answer = run([exe, "--version"], SCITQ_CACHE=str(tmp_path / "cache"))
    assert answer.returncode == 1
    assert "is not a folder" in answer.stderr
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(exe: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "cache/app").mkdir(parents=True)
    os.chown(tmp_path / "cache/app", 65534, 65534)
    answer = run([exe, "--version"], SCITQ_CACHE=str(tmp_path / "cache"))
    assert answer.returncode == 1
    assert "belongs to somebody else" in answer.stderr


def test_a_full_disk_is_named_and_leaves_nothing(exe: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "full").mkdir()
    script = f"mount -t tmpfs -o size=8m,mode=700 none {tmp_path}/full"
    answer = run(
        in_mounts(script, ["sh", "-c", f'"$0" --version; echo $?; ls -A {tmp_path}/full/app', exe]), SCITQ_CACHE=f"{tmp_path}/full"
    )
    assert "no space left on device" in answer.stderr
    assert f"{tmp_path}/full" in answer.stderr
    assert "SCITQ_CACHE" in answer.stderr
    assert answer.stdout.split() == ["1", ".lock"]


def test_a_full_temporary_folder_does_not_matter(exe: Path, environment: dict[str, str], run: Run) -> None:
    script = (
        f"mount -t tmpfs -o size=4k,noexec none {environment['TMPDIR']}; cat /dev/zero >{environment['TMPDIR']}/filler 2>/dev/null || :"
    )
    answer = run(in_mounts(script, [exe, "--version"]))
    assert (answer.returncode, answer.stderr) == (0, "")


def test_noexec_is_named_and_avoided(exe: Path, tmp_path: Path, home: Path, run: Run) -> None:
    script = f"mount -t tmpfs -o noexec,mode=700 none {home}"
    answer = run(in_mounts(script, [exe, "--version"]), SCITQ_CACHE=f"{home}/x")
    assert answer.returncode == 1
    assert "noexec" in answer.stderr
    answer = run(in_mounts(script, [exe, "--version"]))
    assert (answer.returncode, answer.stderr) == (0, "")
    assert len(versions(tmp_path / f"tmp/scitq-{os.getuid()}/.cache/scitq")) == 1


def test_a_read_only_home_is_no_obstacle(exe: Path, tmp_path: Path, home: Path, run: Run) -> None:
    answer = run(in_mounts(f"mount -t tmpfs -o ro,mode=700 none {home}", [exe, "--version"]))
    assert (answer.returncode, answer.stderr) == (0, "")
    assert len(versions(tmp_path / f"tmp/scitq-{os.getuid()}/.cache/scitq")) == 1


def test_a_file_that_was_not_copied_wholly_says_so(exe: Path, tmp_path: Path, home: Path, run: Run) -> None:
    copy = tmp_path / "scitq"
    shutil.copy(exe, copy)
    os.truncate(copy, exe.stat().st_size - 1000)
    answer = run([copy, "--version"])
    assert answer.returncode == 1
    assert "is not whole" in answer.stderr

    shutil.copy(exe, copy)
    with copy.open("r+b") as file:
        file.seek(-TRAILER.size, 2)
        _, at, length, *_ = TRAILER.unpack(file.read())
        file.seek(at + length // 2)
        file.write(b"\xa5" * 4096)
    answer = run([copy, "--version"])
    assert answer.returncode == 1
    assert "is damaged; copy it again" in answer.stderr
    assert versions(home / ".cache/scitq") == []


def test_it_runs_by_relative_path_by_link_and_from_path(exe: Path, tmp_path: Path, environment: dict[str, str], run: Run) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/scitq").symlink_to(exe)
    assert run([tmp_path / "bin/scitq", "--version"]).returncode == 0
    assert run(["sh", "-c", f"cd {tmp_path}/bin && ./scitq --version"]).returncode == 0
    assert run(["scitq", "--version"], PATH=f"{tmp_path}/bin:{environment['PATH']}").returncode == 0


def test_libraries_of_the_site_do_not_reach_it(exe: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "lib").mkdir()
    for name in ("libc.so.6", "libpython3.11.so.1.0", "libcrypto.so.3", "libz.so.1"):
        (tmp_path / "lib" / name).write_text("not a library")
    answer = run([exe, "--version"], LD_LIBRARY_PATH=str(tmp_path / "lib"), PYTHONPATH=str(tmp_path), PYTHONHOME="/nonexistent")
    assert (answer.returncode, answer.stderr) == (0, "")


def test_cli_08_interrupt_in_the_first_milliseconds_leaves_no_traceback(exe: Path, environment: dict[str, str], run: Run) -> None:
    run([exe, "--version"])
    for step in range(24):
        process = subprocess.Popen(
            [exe, "--help"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        time.sleep(step * 0.003)  # the moment itself is what is varied
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert err == b"", f"after {step * 3} ms"
        assert process.returncode in (0, 130, -signal.SIGINT)
