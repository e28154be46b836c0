"""A task that writes without end: bounded memory everywhere, every byte kept, other tasks go on (contract LOG-7)."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import psutil
from tests.lib.site import Site

MOST_RESIDENT = 250 << 20
WRITTEN = 150_000_000


def resident(folder: Path) -> int:
    """The largest process that belongs to the site, in bytes."""
    found = 0
    for process in psutil.process_iter(["cmdline", "memory_info"]):
        if str(folder) in " ".join(process.info["cmdline"] or []) and process.info["memory_info"]:
            found = max(found, process.info["memory_info"].rss)
    return found


def test_log_07_much_output_needs_little_memory_and_is_kept_whole(tmp_path: Path, scitq_argv: list[str]) -> None:
    with Site(tmp_path / "site", scitq_argv) as site:
        site.agent(concurrency=2)
        task = site.create(f"yes 0123456789 | head -c {WRITTEN}", "--shell sh")
        small = site.create("echo quick")
        most, seen = 0, ""
        while seen not in {"S", "F"}:
            most = max(most, resident(site.folder))
            seen = site.status_of(task)
        assert seen == "S"
        assert site.status_of(small) == "S"
        assert most < MOST_RESIDENT
        process = site.start(["task", "output", "--id", str(task), "--stdout"])
        assert process.stdout is not None
        told = hashlib.sha256()
        while piece := process.stdout.read(1 << 20):
            told.update(piece)
        assert process.wait() == 0
        wanted = hashlib.sha256((b"0123456789\n" * (WRITTEN // 11 + 1))[:WRITTEN])
        assert told.hexdigest() == wanted.hexdigest()
        tail = site.ok(f"task output --id {task} --tail 2").out
        assert len(tail.splitlines()) == 2


def test_log_07_a_cap_cuts_with_a_note(tmp_path: Path, scitq_argv: list[str]) -> None:
    with Site(tmp_path / "site", scitq_argv, settings={"max_task_log": "1M"}) as site:
        site.agent()
        task = site.create("yes | head -c 3000000; exit 0", "--shell sh")
        site.wait_status(task, "S")
        out = subprocess.run(
            [*site.argv, "task", "output", "--id", str(task)], env=site.environment, capture_output=True, check=True, timeout=60
        )
        assert 900_000 < len(out.stdout) < 1_100_000
        assert b"scitq:" in out.stdout + out.stderr
