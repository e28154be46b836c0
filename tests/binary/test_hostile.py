"""The one file on odd machines, among other users and inside other programs (docs/install.md, "How the one file works")."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lib.onefile import TRAILER, Run, in_mounts, versions
from tests.lib.syscalls import NO_FLOCK, failing

pytestmark = pytest.mark.xdist_group("launcher")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
SOMEBODY, ANOTHER = "65533", "65532"

# A machine whose temporary folder is empty and open to all, with the file in /tmp/bin; $0 is the file here.
OPEN_MACHINE = """
mount -t tmpfs -o mode=755 none /mnt
cp {exe} /mnt/scitq
for folder in /var/tmp /dev/shm; do mount -t tmpfs -o mode=755 none $folder; done
mount -t tmpfs -o mode=1777 none /tmp
mkdir /tmp/bin
mv /mnt/scitq /tmp/bin/scitq
chmod 755 /tmp/bin /tmp/bin/scitq
cd /
as() {{ user=$1; shift; setpriv --reuid=$user --regid=$user --clear-groups env -i PATH=$PATH HOME=/nonexistent "$@"; }}
"""


def on_open_machine(exe: Path, script: str) -> list[str]:
    """The words that run the shell `script` on a machine of several users; `as UID [NAME=VALUE...] PROGRAM` is one of them."""
    return in_mounts(OPEN_MACHINE.format(exe=exe) + script, ["true"])


def test_closed_standard_descriptors_are_given_to_no_other_file(exe: Path, home: Path, run: Run) -> None:
    for closed in ("<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"):
        assert run(["sh", "-c", f'"$0" --version {closed}', exe]).returncode == 0, closed
    (name,) = versions(home / ".cache/scitq")
    assert (home / ".cache/scitq/app" / name / ".lock").read_bytes() == b""


def test_limits_on_memory_and_on_the_size_of_files_are_told(exe: Path, tmp_path: Path, run: Run) -> None:
    for limit in ("-v 10000", "-f 1000"):
        answer = run(["sh", "-c", f'ulimit {limit}; exec "$0" --version', exe], SCITQ_CACHE=str(tmp_path / "cache"))
        assert answer.returncode == 1, limit
        assert f"ulimit {limit[:2]}" in answer.stderr
    assert [one for one in versions(tmp_path / "cache") if not one.startswith(".lock")] == []


def test_a_path_that_the_dynamic_linker_would_misread_is_passed_over(exe: Path, tmp_path: Path, run: Run) -> None:
    for name in ("a:b", "$LIB", "x;y"):
        (tmp_path / name).mkdir()
        answer = run([exe, "--version"], SCITQ_CACHE=str(tmp_path / name))
        assert answer.returncode == 1
        assert "takes no path with" in answer.stderr
        assert run([exe, "--version"], HOME=str(tmp_path / name)).returncode == 0
    spaced = tmp_path / "with space\nand é"
    assert run([exe, "--version"], SCITQ_CACHE=str(spaced)).returncode == 0
    assert len(versions(spaced)) == 1


def test_a_damaged_list_of_files_is_noticed(exe: Path, tmp_path: Path, home: Path, run: Run) -> None:
    copy = tmp_path / "scitq"
    shutil.copy(exe, copy)
    with copy.open("r+b") as file:
        file.seek(-TRAILER.size, 2)
        at, length = TRAILER.unpack(file.read())[3:5]
        file.seek(at + length // 2)
        byte = file.read(1)
        file.seek(at + length // 2)
        file.write(bytes([byte[0] ^ 1]))
    answer = run([copy, "--version"])
    assert answer.returncode == 1
    assert "is not whole" in answer.stderr
    shutil.copy(exe, copy)
    with copy.open("ab") as file:
        file.write(b"more")
    assert "is not whole" in run([copy, "--version"]).stderr
    assert not (home / ".cache").exists()


def test_starts_killed_at_any_moment_leave_nothing_that_the_next_does_not_mend(
    exe: Path, home: Path, environment: dict[str, str], run: Run
) -> None:
    for step in range(16):
        process = subprocess.Popen([exe, "--version"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(step * 0.02)  # the moment itself is what is varied
        process.kill()
        process.wait()
        if step % 4 == 3:
            answer = run([exe, "--version"])
            assert (answer.returncode, answer.stderr) == (0, ""), step
            found = {name: len(list((home / ".cache/scitq/app" / name).iterdir())) for name in versions(home / ".cache/scitq")}
            assert len([name for name in found if not name.startswith(".")]) == 1
            assert not any(files for name, files in found.items() if name.startswith(".")), found  # an empty one stays for an hour
            shutil.rmtree(home / ".cache")


def test_a_full_home_is_tried_once_and_used_when_there_is_room_again(exe: Path, tmp_path: Path, home: Path, run: Run) -> None:
    """A start that finds what an earlier one unpacked elsewhere does not fill the home again."""
    script = f"mount -t tmpfs -o size=8m,mode=700 none {home}"
    shell = (
        '"$0" --version; before=$(stat -c %y $HOME/.cache/scitq/app); "$0" --version; test "$before" = "$(stat -c %y $HOME/.cache/scitq/app)";'
        'echo $?; mount -o remount,size=200m $HOME; rm -rf $TMPDIR/scitq-*; "$0" --version; ls $HOME/.cache/scitq/app'
    )
    answer = run(in_mounts(script, ["sh", "-c", shell, exe]))
    assert (answer.returncode, answer.stderr) == (0, "")
    version, again, same, third, name = answer.stdout.splitlines()
    assert version == again == third
    assert same == "0"
    assert name[0].isdigit()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_disk_without_inodes_is_named(exe: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "full").mkdir()
    answer = run(
        in_mounts(f"mount -t tmpfs -o nr_inodes=50,mode=700 none {tmp_path}/full", [exe, "--version"]), SCITQ_CACHE=f"{tmp_path}/full"
    )
    assert answer.returncode == 1
    assert "no space left on device" in answer.stderr


def test_a_cache_that_is_mounted_read_only_is_used(exe: Path, tmp_path: Path, run: Run) -> None:
    cache = tmp_path / "cache"
    assert run([exe, "--version"], SCITQ_CACHE=str(cache)).returncode == 0
    script = f"mount --bind {cache} {cache}; mount -o remount,bind,ro {cache}"
    answer = run(in_mounts(script, [exe, "--version"]), SCITQ_CACHE=str(cache))
    assert (answer.returncode, answer.stderr) == (0, "")


def test_it_starts_on_a_file_system_without_locks(exe: Path, home: Path, run: Run) -> None:
    for _ in range(2):
        answer = run(failing(NO_FLOCK, exe, "--version"))
        assert (answer.returncode, answer.stderr) == (0, "")
    assert len(versions(home / ".cache/scitq")) == 1


@needs_root
def test_users_who_share_a_cache_have_a_folder_each(exe: Path, run: Run) -> None:
    script = """
    mkdir -m 1777 /tmp/cache
    for user in 65533 65532; do as $user SCITQ_CACHE=/tmp/cache /tmp/bin/scitq --version; done
    stat -c '%n %u %a' /tmp/cache/*
    chown 65533 /tmp/cache
    SCITQ_CACHE=/tmp/cache /tmp/bin/scitq --version || :
    """
    answer = run(on_open_machine(exe, script))
    assert "who could change what root starts" in answer.stderr
    assert answer.stdout.splitlines()[2:] == ["/tmp/cache/scitq-65532 65532 700", "/tmp/cache/scitq-65533 65533 700"], answer.stderr


@needs_root
@pytest.mark.parametrize(
    ("planted", "reason"),
    [
        ("as 65532 mkdir -p -m 777 /tmp/scitq-65533/.cache/scitq/app", "belongs to somebody else"),
        ("as 65532 ln -s /tmp/own /tmp/scitq-65533; as 65533 mkdir /tmp/own", "is not a folder"),
        # A link in somebody's folder to what is rightly unpacked: it could be turned elsewhere between the check and the start.
        (
            "as 65533 SCITQ_CACHE=/tmp/own /tmp/bin/scitq --version >/dev/null;"
            "as 65532 mkdir -p -m 755 /tmp/scitq-65533/.cache; as 65532 ln -s /tmp/own /tmp/scitq-65533/.cache/scitq",
            "belongs to somebody else",
        ),
        ("chmod 777 /tmp", "others may rename our folder"),
    ],
)
def test_what_another_user_planted_is_not_used(exe: Path, run: Run, planted: str, reason: str) -> None:
    answer = run(on_open_machine(exe, f"{planted}\n as 65533 /tmp/bin/scitq --version || echo refused"))
    assert answer.stdout == "refused\n", answer.stderr
    assert reason in answer.stderr


@needs_root
def test_it_does_not_run_setuid(exe: Path, run: Run) -> None:
    answer = run(on_open_machine(exe, "chmod 4755 /tmp/bin/scitq; as 65533 /tmp/bin/scitq --version || echo refused"))
    assert answer.stdout == "refused\n"
    assert "setuid" in answer.stderr


@pytest.mark.parametrize(
    "script",
    [
        'exec -a weird "$0" --version',
        'exec -a "" "$0" --version',
        'mkdir gone; cd gone; rmdir ../gone; exec "$0" --version',
        'umask 0777; exec "$0" --version',
        'ulimit -n 10; exec "$0" --version',
        'ulimit -v 150000; exec "$0" --version',
        'exec 3<"$0"; exec /proc/self/fd/3 --version',
        'for i in $(seq 2000); do export V$i=$i; done; exec "$0" --version',
        'cp "$0" copy; chmod 755 copy; exec setpriv --no-new-privs ./copy --version',
    ],
)
def test_it_starts_however_it_is_started(exe: Path, tmp_path: Path, run: Run, script: str) -> None:
    answer = run(["bash", "-c", f"cd {tmp_path}; {script}", exe])
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.startswith("scitq ")


def test_it_starts_from_memory_and_without_proc(exe: Path, run: Run) -> None:
    from_memory = (
        "import os, sys; fd = os.memfd_create('x', 0); f = open(sys.argv[1], 'rb')\n"
        "while os.sendfile(fd, f.fileno(), None, 1 << 24): pass\n"
        "os.execve(fd, ['scitq', '--version'], dict(os.environ))"
    )
    nothing_else = f"mount -t tmpfs none /mnt; cp {exe} /mnt/scitq"
    for words in (
        [sys.executable, "-c", from_memory, exe],
        in_mounts("umount -l /proc", [exe, "--version"]),
        in_mounts(nothing_else, ["chroot", "/mnt", "/scitq", "--version"]),
    ):
        answer = run(words)
        assert (answer.returncode, answer.stderr) == (0, "")


HOSTILE = {
    "PYTHONHOME": "/nonexistent", "PYTHONPATH": "/nonexistent", "PYTHONSTARTUP": "/nonexistent", "PYTHONINSPECT": "1",
    "PYTHONVERBOSE": "3", "PYTHONMALLOC": "nonsense", "PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1", "PYTHONIOENCODING": "nonsense",
    "PYTHONCOERCECLOCALE": "warn", "PYTHONUTF8": "7", "PYTHONHASHSEED": "nonsense", "PYTHONOPTIMIZE": "x", "PYTHONPLATLIBDIR": "x",
    "LD_LIBRARY_PATH": "/nonexistent:", "LD_PRELOAD": "/nonexistent.so", "LD_AUDIT": "/nonexistent.so", "LD_BIND_NOW": "1",
    "GCONV_PATH": "/nonexistent", "LOCPATH": "/nonexistent", "GLIBC_TUNABLES": "glibc.malloc.check=3", "VIRTUAL_ENV": "",
    "LD_LIBRARY_PATH_ORIG": "/mine", "_PYI_ARCHIVE_FILE": "/mine", "_PYI_PARENT_PROCESS_LEVEL": "1", "_MEIPASS2": "/mine",
    "_PYI_APPLICATION_HOME_DIR": "/mine", "OPENSSL_CONF": "/dev/null", "LC_ALL": "xx_YY.UTF-8", "LANG": "nonsense", "TZ": ":/etc/passwd",
    "EMPTY": "", "LINES_OF_TEXT": "a\nb\n", "NOT_UTF8": "\udcff", "SCITQ_BUNDLE": "/nonexistent", "SCITQ_BUNDLE_LOCK": "1",
}  # fmt: skip


def test_cli_09_what_it_starts_has_the_users_environment_to_the_byte(
    exe: Path, tmp_path: Path, environment: dict[str, str], run: Run
) -> None:
    """Whatever a site's modules set: Python is not led astray, and the programs that it starts get it all."""
    program = tmp_path / "bin/rclone"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable} -ISE\nimport pathlib\n"
        f"pathlib.Path({str(tmp_path / 'seen')!r}).write_bytes(pathlib.Path('/proc/self/environ').read_bytes())\nprint('rclone v1.60.1')\n"
    )
    program.chmod(0o755)
    given = environment | HOSTILE | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    assert run([exe, "--version"], **HOSTILE).stderr == ""
    for name in ("LD_PRELOAD", "LD_AUDIT"):  # the loader of the program above would say that they are not there
        given[name] = ""
    done = subprocess.run([exe, "doctor", "--no-server"], env=given, capture_output=True, timeout=120, check=False)
    assert b"Traceback" not in done.stderr
    seen = dict(line.split(b"=", 1) for line in (tmp_path / "seen").read_bytes().split(b"\0") if line)
    expected = {os.fsencode(name): os.fsencode(value) for name, value in given.items() if not name.startswith("SCITQ_BUNDLE")}
    assert seen == expected
