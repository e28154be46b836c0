#!/usr/bin/env python3
"""Transfers to and from one S3 server, ours beside those of rclone, s5cmd and the AWS command line, as ratios of medians.

    storage_bench.py [--rounds 3] [--small-rounds 7] [--large-mib 1024] [--small 1000] [--limit 330] [--folder DIR] [--json]

The server is the one of `build/services.py up s3`. The tools take turns within each round, so that noise falls on all.
Ours runs in this process with new connections in each round; the others with their usual start, 10 to 60 ms (the AWS command
line: a second, and 5 s for the small files, with which it is not asked). After --limit seconds no further round begins.

What would spoil the ratios is kept out of them. Small files lie in memory where there is room: ext4 without a journal looks through
all that was deleted within a minute before it makes a file, up to 2 ms for each, whatever tool asks for it. The disk is synced
before each measurement, for 1 GiB that the server keeps back is written over the next tool's time. Each round has a bucket of its own,
whose volumes SeaweedFS drops with it; deleted objects alone stay on its disk until it compacts them, in the midst of some later round.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from scitq.storage.registry import Storages  # noqa: E402 - found by the lines above
from tests.lib.services import STATE, S3Service  # noqa: E402

PEERS = ROOT / ".cache" / "bench-venv" / "bin"
MEMORY = Path("/dev/shm")
PATIENCE_S = 180
DOWNLOADS = {"small": 1, "large": 3}
SIZES: dict[str, tuple[str, ...]] = {"small": ("rclone", "s5cmd"), "large": ("rclone", "s5cmd", "aws")}

Tool = Callable[[str, Path, str], None]


def s3_service() -> S3Service:
    state = json.loads(STATE.read_text()) if STATE.is_file() else {}
    if "s3" not in state:
        raise OSError("no S3 server; start it with: build/services.py up s3")
    return S3Service(**{key: value for key, value in state["s3"].items() if key != "processes"})


def ours(service: S3Service) -> Tool:
    def run(action: str, local: Path, key: str) -> None:
        storages = Storages({"s3": service.rclone()})
        s3 = storages.get("s3")
        match action:
            case "large up":
                s3.upload(local, key)
            case "large down":
                s3.download(key, local)
            case "small up":
                assert not s3.upload_many([(path, f"{key}/{path.name}") for path in local.iterdir()])
            case "small down":
                s3.download_many([(entry, local / entry.key.rpartition("/")[2]) for entry in s3.entries(f"{key}/")])
        storages.close()

    return run


def _program(name: str) -> str | None:
    places = (Path(sys.executable).parent / name, PEERS / name)
    return next((str(place) for place in places if place.is_file()), None) or shutil.which(name)


def by_command(name: str, service: S3Service) -> Tool | None:
    program = _program(name)
    if program is None:
        return None
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": service.access_key,
        "AWS_SECRET_ACCESS_KEY": service.secret_key,
        "AWS_REGION": service.region,
        "RCLONE_CONFIG": "/notfound",
        "RCLONE_CONFIG_S3_TYPE": "s3",
        "RCLONE_CONFIG_S3_PROVIDER": "Other",
        "RCLONE_CONFIG_S3_ENDPOINT": service.endpoint,
        "RCLONE_CONFIG_S3_ACCESS_KEY_ID": service.access_key,
        "RCLONE_CONFIG_S3_SECRET_ACCESS_KEY": service.secret_key,
    }

    def argv(action: str, local: Path, key: str) -> list[str]:
        size, way = action.split()
        is_small = size == "small"
        match name:
            case "rclone":
                pair = [str(local), f"s3:{key}"]
                return ["copy" if is_small else "copyto", *(pair if way == "up" else pair[::-1])]
            case "s5cmd":
                pair = [f"{local}/" if is_small else str(local), f"s3://{key}" + ("/" if is_small else "")]
                if way == "down":
                    pair = [f"s3://{key}/*" if is_small else f"s3://{key}", pair[0]]
                return ["--endpoint-url", service.endpoint, "cp", *pair]
            case _:
                pair = [str(local), f"s3://{key}"]
                options = ["--recursive"] if is_small else []
                return ["--endpoint-url", service.endpoint, "s3", "cp", "--quiet", *options, *(pair if way == "up" else pair[::-1])]

    def run(action: str, local: Path, key: str) -> None:
        command = [program, *argv(action, local, key)]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=PATIENCE_S)
        if done.returncode:
            sys.exit(f"{' '.join(command)}: {done.stderr.decode(errors='replace')[-2000:]}")

    return run


def make_large(folder: Path, mebibytes: int) -> Path:
    large = folder / "large"
    with large.open("wb") as file:
        for _ in range(mebibytes):
            file.write(os.urandom(1 << 20))
    return large


def make_small(folder: Path, count: int) -> Path:
    many = folder / "small"
    many.mkdir()
    for number in range(count):
        (many / f"{number:06}").write_bytes(os.urandom(10 << 10))
    return many


class Bench:
    """The tools, and what was measured."""

    def __init__(self, limit_s: float) -> None:
        self.service = s3_service()
        found = {"scitq": ours(self.service)} | {name: by_command(name, self.service) for name in ("rclone", "s5cmd", "aws")}
        self.tools = {name: tool for name, tool in found.items() if tool is not None}
        self.times: dict[str, dict[str, list[float]]] = {}
        self._end_s = time.monotonic() + limit_s

    def run(self, size: str, source: Path, rounds: int) -> None:
        """So many rounds with this source, or fewer when the time is over."""
        names = ["scitq", *(name for name in SIZES[size] if name in self.tools)]
        longest = 0.0
        for number in range(rounds):
            begin = time.monotonic()
            if number and begin + longest > self._end_s:
                print(f"{size}: the time is over after {number} of {rounds} rounds", file=sys.stderr, flush=True)
                return
            turn = number % len(names)
            self._round(size, source, names[turn:] + names[:turn], f"{number + 1}/{rounds}", is_compared=number == 0)
            longest = max(longest, time.monotonic() - begin)

    def _round(self, size: str, source: Path, names: Sequence[str], title: str, *, is_compared: bool) -> None:
        client, bucket = self.service.client(), self.service.new_bucket("bench")
        for number in range(16):  # the server makes a bucket's volumes when they are first needed
            client.put_object(Bucket=bucket, Key=f"warm/{number}", Body=b"x" * 10_000)
        for name in names:
            self._measure(f"{size} up", name, source, f"{bucket}/{name}", title)
        taken: dict[str, float] = {}
        for number in range(DOWNLOADS[size]):
            # Downloads cost less than uploads: several for each, but not of tools that are far behind.
            for name in [name for name in names if not number or taken[name] < 2 * min(taken.values())]:
                target = source.parent / f"down-{name}"
                if size == "small":
                    target.mkdir()
                taken[name] = self._measure(f"{size} down", name, target, f"{bucket}/{name}", title)
                if is_compared and subprocess.run(["diff", "-rq", source, target], stdin=subprocess.DEVNULL, check=False).returncode:
                    sys.exit(f"{name}: what came down is not what went up")
                shutil.rmtree(target) if target.is_dir() else target.unlink()
        self.service.drop_bucket(bucket)

    def _measure(self, action: str, name: str, local: Path, key: str, title: str) -> float:
        os.sync()
        begin = time.monotonic()
        self.tools[name](action, local, key)
        taken = time.monotonic() - begin
        self.times.setdefault(action, {}).setdefault(name, []).append(taken)
        print(f"{action:10}  round {title}  {name:6} {taken:6.2f} s", file=sys.stderr, flush=True)
        return taken


def report(rounds: tuple[int, int], large_mib: int, small: int, limit_s: float, folder: Path | None = None) -> dict[str, Any]:
    """Medians in seconds, ratios to the others, and our peak memory. rounds: of the large file and of the small ones."""
    bench = Bench(limit_s)
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > (1 << 30) and folder is None
    with tempfile.TemporaryDirectory(prefix="scitq-bench-", dir=MEMORY if has_room else folder) as name:
        bench.run("small", make_small(Path(name), small), rounds[1])
    with tempfile.TemporaryDirectory(prefix="scitq-bench-", dir=folder) as name:
        bench.run("large", make_large(Path(name), large_mib), rounds[0])
    medians = {action: {name: round(statistics.median(values), 3) for name, values in row.items()} for action, row in bench.times.items()}
    ratios = {}
    for action, row in medians.items():
        others = [value for name, value in row.items() if name != "scitq" and (action.startswith("large") or name == "rclone")]
        if others:
            ratios[action] = round(min(others) / row["scitq"], 2)
    counts = {action: len(row["scitq"]) for action, row in bench.times.items()}
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {"medians_s": medians, "rounds": counts, "ratios": ratios, "peak_mib": peak_mib}


def show(found: dict[str, Any]) -> None:
    for action, row in found["medians_s"].items():
        print(f"{action:10}  " + "  ".join(f"{name} {value:6.2f} s" for name, value in row.items()))
    for action, ratio in found["ratios"].items():
        against, floor = ("the fastest of the others", 0.95) if action.startswith("large") else ("rclone with its defaults", 1.5)
        print(f"{action:10}  {ratio:5.2f} times {against} (at least {floor})")
    print(f"peak memory of ours: {found['peak_mib']} MiB (at most 250)")


def section(_argv: Sequence[str], scale: float) -> None:
    """Transfers, as a section of the whole bench."""
    found = report((3, 7), max(64, int(1024 * scale)), max(100, int(1000 * scale)), 330)
    counts = found["rounds"]
    print(f"\nTransfers to and from one S3 server (medians of {counts['large up']} rounds, of {counts['small up']} for the small files)\n")
    show(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small-rounds", type=int, default=7)
    parser.add_argument("--large-mib", type=int, default=1024)
    parser.add_argument("--small", type=int, default=1000)
    parser.add_argument("--limit", type=float, default=330)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = report((options.rounds, options.small_rounds), options.large_mib, options.small, options.limit, options.folder)
    if options.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
