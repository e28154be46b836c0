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
    """Eight tasks at once sharing a resource of 1 GiB: one download, and all start together."""
    from tests.bench.storage_bench import s3_service

    service = s3_service()
    bucket = service.new_bucket("bench")
    size = int((1 << 30) * min(scale, 1.0))
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
        tasks = _run(site, 8, {"resources": [f"s3://{bucket}/large"]})
        assert all(task["status"] == "S" for task in tasks), tasks
        started = [int(str(task["started_ms"])) for task in tasks]
        spread = (max(started) - min(started)) / 1000
        waited = (max(started) - min(int(str(task["created_ms"])) for task in tasks)) / 1000
        rows = [
            ["one download by `file copy`", f"{alone:.1f} s"],
            ["from the tasks' creation to the start of the last", f"{waited:.1f} s"],
            ["from the start of the first to the start of the last", f"{spread:.2f} s"],
            ["agent's peak memory", f"{_peak_mib(site, agent):.0f} MiB"],
        ]
    service.drop_bucket(bucket)
    show(f"8 tasks at once that share a resource of {size >> 20} MiB, S3 on this machine", ["", ""], rows)


def inputs(argv: Sequence[str], scale: float) -> None:
    """One task with 20,000 small inputs, and `file copy` of them."""
    from tests.bench.storage_bench import s3_service

    service = s3_service()
    bucket = service.new_bucket("bench")
    count = max(100, int(20_000 * min(scale, 1.0)))
    with Site(argv, {"s3": service.rclone()}) as site:
        small = site.folder / "small"
        small.mkdir()
        for number in range(count):
            (small / str(number)).write_bytes(b"x" * 1000)
        begin = time.monotonic()
        site.scitq("file", "copy", str(small), f"s3://{bucket}/small/")
        sent = time.monotonic() - begin
        agent = site.agent(1)
        begin = time.monotonic()
        (task,) = _run(site, 1, {"inputs": [f"s3://{bucket}/small/"]})
        assert task["status"] == "S", task
        rows = [
            ["`file copy` of them to S3", f"{sent:.1f} s"],
            ["a task with them as its inputs, to its end", f"{time.monotonic() - begin:.1f} s"],
            ["agent's peak memory", f"{_peak_mib(site, agent):.0f} MiB"],
        ]
    service.drop_bucket(bucket)
    show(f"{count} files of 1,000 bytes, S3 on this machine", ["", ""], rows)
