#!/usr/bin/env python3
"""Transfers to and from one S3 server, ours beside those of rclone, s5cmd and the AWS command line, as ratios of medians.

    storage_bench.py [--rounds 3] [--large-mib 1024] [--small 1000] [--folder DIR] [--json]

The server is the one of `build/services.py up s3`. The tools take turns within each round, so that noise falls on all.
Ours runs in this process with new connections in each round; the others with their usual start, 10 to 60 ms.
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
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from scitq.storage.registry import Storages  # noqa: E402 - found by the lines above
from tests.lib.services import STATE, S3Service  # noqa: E402

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
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else shutil.which(name)


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
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)}: {done.stderr.decode(errors='replace')[-2000:]}")

    return run


def make_sources(folder: Path, large_mib: int, small: int) -> tuple[Path, Path]:
    large = folder / "large"
    with large.open("wb") as file:
        for _ in range(large_mib):
            file.write(os.urandom(1 << 20))
    many = folder / "many"
    many.mkdir()
    for number in range(small):
        (many / f"{number:06}").write_bytes(os.urandom(10 << 10))
    return large, many


def measure(
    tools: dict[str, Tool], service: S3Service, folder: Path, rounds: int, sources: tuple[Path, Path]
) -> dict[str, dict[str, list[float]]]:
    times: dict[str, dict[str, list[float]]] = {}
    storages = Storages({"s3": service.rclone()})
    s3 = storages.get("s3")
    for number in range(rounds):
        order = list(tools)[number % len(tools) :] + list(tools)[: number % len(tools)]
        for size, source in zip(("large", "small"), sources, strict=True):
            for name in order:
                key = f"ready/bench-{uuid.uuid4().hex[:8]}"
                target = folder / f"down-{name}"
                if size == "small":
                    target.mkdir()
                for way, local in (("up", source), ("down", target)):
                    os.sync()  # what was written before is not this one's burden
                    begin = time.monotonic()
                    tools[name](f"{size} {way}", local, key)
                    times.setdefault(f"{size} {way}", {}).setdefault(name, []).append(time.monotonic() - begin)
                same = subprocess.run(["diff", "-rq", source, target], stdin=subprocess.DEVNULL, check=False)
                if same.returncode:
                    sys.exit(f"{name}: what came down is not what went up")
                shutil.rmtree(target) if target.is_dir() else target.unlink()
                s3.delete([entry.key for entry in s3.entries(key)])
    storages.close()
    return times


def report(rounds: int, large_mib: int, small: int, folder: Path | None = None) -> dict[str, Any]:
    """Medians in seconds, ratios to the others, and our peak memory."""
    service = s3_service()
    found = {"scitq": ours(service)} | {name: by_command(name, service) for name in ("rclone", "s5cmd", "aws")}
    tools = {name: tool for name, tool in found.items() if tool is not None}
    with tempfile.TemporaryDirectory(prefix="scitq-bench-", dir=folder) as name:
        times = measure(tools, service, Path(name), rounds, make_sources(Path(name), large_mib, small))
    medians = {action: {name: round(statistics.median(values), 3) for name, values in row.items()} for action, row in times.items()}
    ratios = {}
    for action, row in medians.items():
        others = [value for name, value in row.items() if name != "scitq" and (action.startswith("large") or name == "rclone")]
        if others:
            ratios[action] = round(min(others) / row["scitq"], 2)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return {"medians_s": medians, "ratios": ratios, "peak_mib": peak_mib}


def show(found: dict[str, Any]) -> None:
    for action, row in found["medians_s"].items():
        print(f"{action:10}  " + "  ".join(f"{name} {value:6.2f} s" for name, value in row.items()))
    for action, ratio in found["ratios"].items():
        against, floor = ("the fastest of the others", 0.95) if action.startswith("large") else ("rclone with its defaults", 1.5)
        print(f"{action:10}  {ratio:5.2f} times {against} (at least {floor})")
    print(f"peak memory of ours: {found['peak_mib']} MiB (at most 250)")


def section(_argv: Sequence[str], scale: float) -> None:
    """Transfers, as a section of the whole bench."""
    print("\nTransfers to and from one S3 server (medians of 3 rounds)\n")
    show(report(3, max(64, int(1024 * scale)), max(100, int(1000 * scale))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large-mib", type=int, default=1024)
    parser.add_argument("--small", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = report(options.rounds, options.large_mib, options.small, options.folder)
    if options.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
