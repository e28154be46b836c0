"""What the one file does to its environment, seen without the one file."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scitq.util import bundle, proc

SETTLE = """
import json, os
from scitq.util import bundle
bundle.settle()
print(json.dumps([dict(os.environ), bundle.own_command(), str(bundle.folder())]))
"""


def settled(**environment: str) -> tuple[dict[str, str], list[str], str]:
    source = str(Path(bundle.__file__).parents[2])
    answer = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {source!r})\n{SETTLE}"],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        check=True,
    )
    found = json.loads(answer.stdout)
    return found[0], found[1], found[2]


def test_cli_09_the_users_environment_comes_back_and_ours_is_gone(tmp_path: Path) -> None:
    environment, _, _ = settled(
        LD_LIBRARY_PATH="",
        SCITQ_ORIG_LD_LIBRARY_PATH="/opt/site",
        SCITQ_ORIG_VIRTUAL_ENV="/home/me/env",
        _PYI_ARCHIVE_FILE="x",
        SCITQ_BUNDLE=str(tmp_path),
        SCITQ_EXECUTABLE="/bin/sh",
        SCITQ_BUNDLE_LOCK="77",
    )
    assert environment["LD_LIBRARY_PATH"] == "/opt/site"
    assert environment["VIRTUAL_ENV"] == "/home/me/env"
    assert not [name for name in environment if name.startswith(("_PYI", "SCITQ_"))]


def test_cli_09_a_variable_that_was_not_set_stays_unset() -> None:
    environment, command, folder = settled(LD_LIBRARY_PATH="")
    assert "LD_LIBRARY_PATH" not in environment
    assert command[1:] == ["-m", "scitq"]
    assert folder == "None"


def test_it_starts_itself_by_the_one_file_and_when_that_is_gone_by_what_it_unpacked(tmp_path: Path) -> None:
    (tmp_path / "ld-linux-x86-64.so.2").touch()
    _, command, folder = settled(SCITQ_BUNDLE=str(tmp_path), SCITQ_EXECUTABLE="/bin/sh")
    assert command == ["/bin/sh"]
    assert folder == str(tmp_path)
    _, command, _ = settled(SCITQ_BUNDLE=str(tmp_path), SCITQ_EXECUTABLE="/nonexistent/scitq")
    assert command == [f"{tmp_path}/ld-linux-x86-64.so.2", "--library-path", f"{tmp_path}/_internal", f"{tmp_path}/scitq"]


def test_the_unpacked_folder_is_locked_while_the_process_lives(tmp_path: Path) -> None:
    bundle._hold(str(tmp_path))
    other = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(other)


def test_refresh_makes_everything_young_and_nothing_later_than_the_lock_file(tmp_path: Path) -> None:
    (tmp_path / "_internal").mkdir()
    files = [tmp_path / ".lock", tmp_path / "scitq", tmp_path / "_internal/libc.so.6"]
    for file in files:
        file.touch()
        os.utime(file, (1, 1))
    (tmp_path / "link").symlink_to("scitq")
    bundle.refresh(tmp_path)
    assert all(file.stat().st_mtime > 1e9 for file in files)
    assert max(file.lstat().st_mtime_ns for file in tmp_path.rglob("*")) == files[0].stat().st_mtime_ns


def test_load_all_imports_every_module() -> None:
    bundle.load_all("scitq.util")
    assert "scitq.util.build_info" in sys.modules


def test_a_child_gets_this_environment_and_what_is_added() -> None:
    answer = proc.run(
        [sys.executable, "-c", "import os; print(os.environ['SCITQ_TEST_WORD'])"], timeout_s=60, env={"SCITQ_TEST_WORD": "yes"}
    )
    assert answer.stdout == b"yes\n"
