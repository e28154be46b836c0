"""proc.Helper: a process that ends with the one that started it, together with what it started itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.lib.site import wait_until

from scitq.util import proc

# As podman of an ordinary user: the first process has a second one, and ends at once when it is told to.
TWO = ["sh", "-c", 'sh -c "trap : TERM; sleep 1000" & echo up >up; exec sleep 1000']
OWNER = """
import sys, time
from scitq.util import proc
helper = proc.Helper(sys.argv[1:])
print(helper._process.pid, flush=True)
time.sleep(1000)
"""


def members(group: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its = stat.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(its) == group and state != "Z":
            found.append(int(stat.parent.name))
    return found


def test_a_helper_of_two_processes_ends_with_its_killed_owner(tmp_path: Path) -> None:
    words = [sys.executable, "-c", OWNER, *TWO]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=tmp_path) as owner:
        assert owner.stdout is not None
        group = int(owner.stdout.readline())
        wait_until(lambda: (tmp_path / "up").exists() and len(members(group)) > 2, "the helper's processes")
        owner.kill()
    wait_until(lambda: not members(group), "the end of both")


def test_a_helper_is_ended_whole_and_can_be_ended_twice(tmp_path: Path) -> None:
    helper = proc.Helper(TWO, cwd=tmp_path)
    wait_until(lambda: (tmp_path / "up").exists(), "the helper")
    group = helper._process.pid
    assert helper.status() is None
    helper.end()
    helper.end()
    assert helper.status() == -signal.SIGTERM
    assert members(group) == []


def test_what_a_helper_leaves_when_it_ends_by_itself_is_ended(tmp_path: Path) -> None:
    helper = proc.Helper(["sh", "-c", "sleep 1000 & exit 3"], cwd=tmp_path)
    group = helper._process.pid
    helper.wait()
    assert helper.status() == 3
    assert members(group) == []
    assert helper._guard.poll() is not None
    assert os.getpgrp() != group
