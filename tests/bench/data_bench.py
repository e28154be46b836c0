"""Data of tasks: one large resource shared by eight tasks, and an input of many small files, from the test S3 server."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.site import Site
from tests.bench.tables import show


def _peak_mib(site: Site, name: str) -> float:
    status = Path(f"/proc/{site.children[name].pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _run(site: Site, count: int, uris: dict[str, list[str]]) -> list[dict[str, object]]:
    lines = "".join(json.dumps({"container": "bare", "command": "true", **uris}) + "\n" for _ in range(count))
    ids = site.scitq("task", "create", "--from-file", "-", "--quiet", data=lines).split()
    site.scitq("task", "wait", "--id", ",".join(ids), "--quiet")
    return [row["row"] for row in site.table("task", "show", *[word for one in ids for word in ("--id", one)])]


def sharing(argv: Sequence[str], scale: float) -> None:
    """Eight tasks at once sharing a resource of 1 GiB: one download, and all start together; then 20,000 small inputs."""
    from tests.bench.storage_bench import s3_service

    service = s3_service()
    bucket = service.new_bucket("bench")
    size = int((1 << 30) * min(scale, 1.0))
    count = int(20_000 * min(scale, 1.0))
    rows = []
    with Site(argv, {"s3": service.rclone()}) as site:
        large = site.folder / "large"
        with large.open("wb") as file:
            for _ in range(max(size >> 20, 1)):
                file.write(os.urandom(1 << 20))
        site.scitq("file", "copy", str(large), f"s3://{bucket}/large")
        large.unlink()
        begin = time.monotonic()
        site.scitq("file", "copy", f"s3://{bucket}/large", str(large))
        alone = time.monotonic() - begin
        large.unlink()
        agent = site.agent(8)
        begin = time.monotonic()
        tasks = _run(site, 8, {"resources": [f"s3://{bucket}/large"]})
        whole = time.monotonic() - begin
        started = [int(str(task["started_ms"])) for task in tasks]
        spread = (max(started) - min(started)) / 1000
        waited = (max(started) - min(int(str(task["created_ms"])) for task in tasks)) / 1000
        rows.append(["one download, `file copy`", f"{size >> 20} MiB", f"{alone:.1f} s", ""])
        rows.append(
            [
                "8 tasks at once share it",
                f"{size >> 20} MiB",
                f"{whole:.1f} s",
                f"{spread:.2f} s apart, the last after {waited:.1f} s",
            ]
        )
        rows.append(["agent's peak memory", "", f"{_peak_mib(site, agent):.0f} MiB", ""])
        small = site.folder / "small"
        small.mkdir()
        for number in range(count):
            (small / str(number)).write_bytes(b"x" * 1000)
        begin = time.monotonic()
        site.scitq("file", "copy", str(small), f"s3://{bucket}/small/")
        sent = time.monotonic() - begin
        begin = time.monotonic()
        (task,) = _run(site, 1, {"inputs": [f"s3://{bucket}/small/"]})
        assert task["status"] == "S", task
        rows.append(["1 task, many inputs", f"{count} files", f"{time.monotonic() - begin:.1f} s", f"file copy of them {sent:.1f} s"])
        rows.append(["agent's peak memory", "", f"{_peak_mib(site, agent):.0f} MiB", ""])
    show("Data of tasks, S3 on this machine", ["what", "how much", "time", ""], rows)
