"""The measurements, one function each. Noisy machines: the ratios inside one table count."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench import agents_bench, data_bench, queue_bench, startup_bench, storage_bench
from tests.bench.site import Site
from tests.bench.tables import high, middle, ms, rate, show

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / ".cache" / "bench-venv" / "bin" / "python"
HYPERQUEUE = """
import os, sys, time
from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
slots, count = int(sys.argv[1]), int(sys.argv[2])
with LocalCluster() as cluster:
    cluster.start_worker(WorkerConfig(cores=slots))
    client = cluster.client()
    job = Job()
    for _ in range(count):
        job.program(["true"])
    begin = time.time()
    client.wait_for_jobs([client.submit(job)])
    # Its client looks once a second: the last task's files tell the end better.
    print(max(os.stat(name).st_mtime for name in os.listdir(".") if name.endswith(".stdout")) - begin)
"""


def timed(argv: Sequence[str], *, env: dict[str, str] | None = None, data: bytes | None = None) -> float:
    begin = time.monotonic()
    # without a timeout, for which subprocess would look only every 50 ms
    subprocess.run(argv, env=env, input=data, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.monotonic() - begin


def tasks_per_second(argv: Sequence[str], scale: float) -> None:
    """N bare `true` with 2 and 8 slots, beside HyperQueue and GNU parallel."""
    count = max(200, int(3000 * scale))
    rows: dict[str, list[str]] = {"scitq, everything durable": [], "HyperQueue, output to files": [], "GNU parallel": []}
    for slots in (2, 8):
        with Site(argv) as site:
            site.agent(slots, prefetch=4 * slots)
            lines = "".join(json.dumps({"container": "bare", "command": "true"}) + "\n" for _ in range(count))
            begin = time.monotonic()
            ids = site.scitq("task", "create", "--from-file", "-", "--quiet", data=lines).split()
            site.scitq("task", "wait", "--id", f"{ids[0]}-{ids[-1]}", "--quiet")
            rows["scitq, everything durable"].append(rate(count, time.monotonic() - begin))
        with tempfile.TemporaryDirectory() as place:
            if PEERS.exists():
                command = [str(PEERS), "-c", HYPERQUEUE, str(slots), str(count)]
                done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False, timeout=600)
                words = done.stdout.split()
                rows["HyperQueue, output to files"].append(rate(count, float(words[-1])) if done.returncode == 0 else "failed")
            else:
                rows["HyperQueue, output to files"].append("–")
        if shutil.which("parallel"):
            few = max(100, count // 5)
            numbers = "\n".join(map(str, range(few))).encode()
            rows["GNU parallel"].append(rate(few, timed(["parallel", "-j", str(slots), "true #"], data=numbers)))
        else:
            rows["GNU parallel"].append("–")
    title = f"Tasks per second: {count} times `true`, from the creation of the first to the end of the last"
    show(title, ["", "2 slots", "8 slots"], [[name, *values] for name, values in rows.items()])


def latency(argv: Sequence[str], scale: float) -> None:
    """One task on an idle system, by the broker's own journal and as a user at a prompt sees it."""
    samples = max(10, int(50 * scale))
    with Site(argv) as site:
        site.agent(2)
        waits, whole = [], []
        for _ in range(samples):
            begin = time.monotonic()
            number = site.scitq("task", "create", "--container", "bare", "--command", "true", "--wait", "--quiet").split()[0]
            whole.append(time.monotonic() - begin)
            task = json.loads(site.scitq("task", "show", "--id", number, "--json"))[0]["row"]
            waits.append((task["started_ms"] - task["created_ms"]) / 1000)
        rows = [["`task create --wait`, start to end of the command", ms(middle(whole)), ms(high(whole))]]
        rows.insert(0, ["created to started", ms(middle(waits)), ms(high(waits))])
        show(f"Latency of one task on an idle system ({samples} tasks)", ["", "median", "99%"], rows)


def containers(argv: Sequence[str], scale: float) -> None:
    """Containers per second beside `docker run --rm`."""
    image = ["docker", "image", "inspect", "alpine"]
    if not shutil.which("docker") or subprocess.run(image, capture_output=True, check=False).returncode:
        print("\n(no containers: Docker does not answer, or has no image alpine)")
        return
    count = max(8, int(40 * scale))
    rows = []
    for slots in (1, 4):
        with Site(argv) as site:
            site.agent(slots, prefetch=slots)
            lines = "".join(json.dumps({"container": "alpine", "command": "true"}) + "\n" for _ in range(count))
            begin = time.monotonic()
            ids = site.scitq("task", "create", "--from-file", "-", "--quiet", data=lines).split()
            site.scitq("task", "wait", "--id", f"{ids[0]}-{ids[-1]}", "--quiet")
            ours = time.monotonic() - begin
        loop = f"seq {count} | xargs -P {slots} -I X docker run --rm alpine true"
        rows.append([str(slots), rate(count, ours), rate(count, timed(["sh", "-c", loop]))])
    show(f"Containers per second ({count} times `true` in alpine)", ["at a time", "scitq", "`docker run --rm`"], rows)


def creation(argv: Sequence[str], scale: float) -> None:
    """Creates per second, by single commands and in bulk."""
    with Site(argv) as site:
        one = max(10, int(40 * scale))
        begin = time.monotonic()
        for _ in range(one):
            site.scitq("task", "create", "--container", "bare", "--command", "true", "--quiet")
        single = time.monotonic() - begin
        many = max(2000, int(100_000 * scale))
        lines = "".join(json.dumps({"container": "alpine", "command": f"echo {number}"}) + "\n" for number in range(many))
        begin = time.monotonic()
        site.scitq("task", "create", "--from-file", "-", "--quiet", data=lines)
        bulk = time.monotonic() - begin
        rows = [[f"one command each ({one})", rate(one, single)], [f"`--from-file` ({many:,})", rate(many, bulk)]]
        show(
            "Creates per second",
            ["", "tasks/s"],
            rows,
            f"The server holds {site.resident_mib('serve'):.0f} MiB with {many + one:,} tasks waiting.",
        )


def memory(argv: Sequence[str], scale: float) -> None:
    """Resident memory of an idle broker and agent, and after work."""
    with Site(argv) as site:
        name = site.agent(2, prefetch=8)
        rows = [["idle", f"{site.resident_mib('serve'):.0f}", f"{site.resident_mib(name):.0f}"]]
        count = max(100, int(1000 * scale))
        site.scitq("task", "create", "--container", "bare", "--command", "true", "--array", f"1-{count}", "--wait", "--quiet")
        rows.append([f"after {count} tasks", f"{site.resident_mib('serve'):.0f}", f"{site.resident_mib(name):.0f}"])
        show("Resident memory, MiB", ["", "server", "agent"], rows)


def start(argv: Sequence[str], scale: float) -> None:
    """Start time of commands, beside an empty Python."""
    runs = max(5, int(20 * scale))
    with Site(argv) as site:
        site.scitq("task", "create", "--container", "bare", "--command", "true", "--quiet")
        commands = {
            "`python -c pass`": [sys.executable, "-c", "pass"],
            "`scitq --version`": [*argv, "--version"],
            "`scitq task list`": [*argv, "task", "list"],
        }
        rows = []
        for name, command in commands.items():
            samples = [timed(command, env=site.env) for _ in range(runs)]
            rows.append([name, ms(middle(samples)), ms(min(samples))])
    show(f"Start of a command ({runs} runs, {os.cpu_count()} cores)", ["", "median", "best"], rows)


SECTIONS: dict[str, Callable[[Sequence[str], float], None]] = {
    "tasks": tasks_per_second,
    "latency": latency,
    "containers": containers,
    "create": creation,
    "memory": memory,
    "start": start,
    "startup": startup_bench.section,
    "rows": queue_bench.creating,
    "beside": queue_bench.dispatching,
    "lists": queue_bench.listing,
    "sharing": data_bench.sharing,
    "inputs": data_bench.inputs,
    "storage": storage_bench.section,
    "agents": agents_bench.agents,
}
