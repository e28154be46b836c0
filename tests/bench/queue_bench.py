"""The queue itself: creating 100,000 tasks beside plain inserting, and listing among a million while tasks are dispatched."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw
import psutil

from scitq.broker.store.checkpoint import PAGES
from scitq.broker.store.connection import Store
from scitq.broker.store.tasks import spec_body
from scitq.client.api import Api
from scitq.commands.task_send import MOST_TASKS, batches
from scitq.model.task import NewTask, TaskSpec
from scitq.protocol.messages.task import TaskCreate, TaskList, TaskRows, TasksCreated, TasksDetails, TaskShow
from tests.bench.site import Site
from tests.bench.tables import high, middle, ms, show

_BATCH = MOST_TASKS
_LISTING_S = 20.0


def _alike(numbers: range) -> tuple[list[TaskSpec], list[NewTask]]:
    """Tasks that differ in their command."""
    specs = [TaskSpec(container="bare", command=f"echo {number}") for number in numbers]
    return specs, [NewTask(spec=place) for place in range(len(specs))]


def _unlike(numbers: range) -> tuple[list[TaskSpec], list[NewTask]]:
    """Tasks that differ in everything that users vary: command, inputs, output, environment, name, label and key."""
    specs = [
        TaskSpec(
            container="ubuntu:24.04", shell="bash", command=f"align --sample {number} /input/{number}_1.fq /input/{number}_2.fq", cpus=4, mem_gib=8,
            inputs=(f"file:///data/run/{number}_1.fq", f"http://archive/run/{number}_2.fq"), resources=("http://archive/genome.tgz|untar",),
            output=f"file:///data/out/{number}/", env={"SAMPLE": str(number)},
        )
        for number in numbers
    ]  # fmt: skip
    return specs, [
        NewTask(spec=place, name=f"align-{number}", labels={"sample": str(number)}, key=f"{time.monotonic_ns()}-{number}", retries=2)
        for place, number in enumerate(numbers)
    ]


def _create(api: Api, count: int, batch: Callable[[range], tuple[list[TaskSpec], list[NewTask]]]) -> float:
    """Seconds that the server takes, from request to answer."""
    spent = 0.0
    for specs, tasks in batches(zip(*batch(range(count)), strict=True)):
        message = TaskCreate(specs=specs, tasks=tasks)
        begin = time.monotonic()
        api.call(message, TasksCreated, waits_s=600)
        spent += time.monotonic() - begin
    return spent


def _plain_insert(source: Path, count: int) -> tuple[float, float]:
    """Seconds, and seconds of processor time, to insert the very same rows with SQLite alone.

    Same schema, indexes, batches, checkpoints and `synchronous=FULL`; rows go in as SQLite's own bulk call takes them.
    """
    db = apsw.Connection(str(source))
    first_id = db.execute("SELECT max(id) FROM task").get - count + 1
    tables = {
        name: db.execute(f"SELECT * FROM {name} WHERE {column} >= ? ORDER BY {column}", (first_id,)).fetchall()
        for name, column in (("task", "id"), ("task_label", "task_id"), ("task_key", "task_id"))
    }
    tables["task_spec"] = db.execute("SELECT * FROM task_spec WHERE id >= ? ORDER BY id", (tables["task"][0][1],)).fetchall()
    db.close()
    with tempfile.TemporaryDirectory(dir=source.parent) as place:
        store = Store(Path(place))
        store.writer.wal_autocheckpoint(PAGES)
        begin, used = time.monotonic(), time.process_time()
        for first in range(0, count, _BATCH):
            with store.writer as tx:
                for name, rows in tables.items():
                    some = rows[first : first + _BATCH]
                    if some:
                        tx.executemany(f"INSERT INTO {name} VALUES ({', '.join('?' * len(some[0]))})", some)
        spent = time.monotonic() - begin, time.process_time() - used
        store.close()
    return spent


def creating(argv: Sequence[str], scale: float) -> None:
    """100,000 tasks of two kinds, in three rounds each, beside the same rows inserted into SQLite."""
    count = max(_BATCH, int(100_000 * scale))
    for batch, told in ((_alike, "that differ in their command"), (_unlike, "that differ in everything")):
        rows = []
        with Site(argv) as site:
            api = site.api()
            server = psutil.Process(site.children["serve"].pid)
            before = server.memory_info().rss
            for number in range(3):
                cpu = server.cpu_times()
                ours = _create(api, count, batch)
                after = server.cpu_times()
                busy = after.user + after.system - cpu.user - cpu.system
                copy = site.folder / f"copy{number}.db"
                db = sqlite3.connect(site.folder / "data" / "scitq.db")
                db.execute("VACUUM INTO ?", (str(copy),))
                db.close()
                plain, plain_busy = _plain_insert(copy, count)
                copy.unlink()
                times = [f"{ours:.2f} s", f"{plain:.2f} s", f"{ours / plain:.2f}", f"{busy:.2f} s", f"{plain_busy:.2f} s"]
                rows.append([str(number + 1), *times, f"{busy / plain_busy:.2f}"])
            grown = (server.memory_info().rss - before) / 2**20
            api.close()
        head = ["round", "scitq, request to answer", "SQLite alone", "ratio", "scitq, processor", "SQLite alone, processor", "ratio"]
        show(f"Creating {count:,} tasks {told}", head, rows, f"The server's memory grew by {grown:.0f} MiB over {3 * count:,} tasks.")


def dispatching(argv: Sequence[str], scale: float) -> None:
    """How long tasks wait for an idle worker while another client creates 100,000 rich ones that fit no worker."""
    count = max(_BATCH, int(100_000 * scale))
    with Site(argv) as site:
        site.agent(2)
        api = site.api()
        alone = _Stream(site)
        time.sleep(5)
        alone.end()
        beside = _Stream(site)
        _create(api, count, _unlike)
        beside.end()
        api.close()
        rows = _waits(site, alone.made, "nothing else") + _waits(site, beside.made, f"{count:,} tasks created beside")
    show("Dispatch while tasks are created", ["", "median", "99%"], rows)


def _fill(path: Path, count: int) -> None:
    """A million ended tasks, put into a database that no server has open."""
    db = apsw.Connection(str(path))
    spec = "INSERT INTO task_spec (container, command, body) SELECT 'bare', 'echo ' || value, ?2 FROM series"
    columns = "spec_id, owner_id, name, status, attempt, created_ms, changed_ms, step_id, labels"
    task = (
        f"INSERT INTO task ({columns}) SELECT id, 1, 'n' || id, substr('SSSSSSSSSF', 1 + id % 10, 1), 1, id, id,"
        " CASE WHEN id % 50 = 0 THEN 7 END, CASE WHEN id % 100 = 0 THEN '{\"lot\":\"' || (id % 700) || '\"}' END FROM task_spec"
    )
    label = "INSERT INTO task_label (name, value, task_id) SELECT 'lot', id % 700, id FROM task WHERE id % 100 = 0"
    series = "WITH RECURSIVE series (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM series WHERE value < ?1) "
    body = spec_body(TaskSpec(container="bare", command="x"))
    with db:
        db.execute(series + spec, (count, body))
        db.execute(task)
        db.execute(label)
    db.close()


class _Stream:
    """A client that creates a task again and again, in a thread of its own."""

    def __init__(self, site: Site) -> None:
        self._api = site.api()
        self._ending = threading.Event()
        self.made: list[int] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        message = TaskCreate(specs=[TaskSpec(container="bare", command="true")], tasks=[NewTask()])
        while not self._ending.is_set():
            self.made.extend(self._api.call(message, TasksCreated).ids)
            time.sleep(0.02)
        self._api.close()

    def end(self) -> None:
        self._ending.set()
        self._thread.join()


def _waits(site: Site, ids: Sequence[int], told: str) -> list[list[str]]:
    """From creation to assignment and to running, by the journal."""
    site.scitq("task", "wait", "--id", "-", "--quiet", data=" ".join(map(str, ids)))
    api, pending, running = site.api(), [], []
    for first in range(0, len(ids), 500):
        for task in api.call(TaskShow(ids=list(ids[first : first + 500])), TasksDetails).tasks:
            pending.append(task.state_ms.get("P", 0) / 1000)
            running.append(((task.row.started_ms or 0) - task.row.created_ms) / 1000)
    api.close()
    return [
        [f"created to {what}, {told} ({len(ids)} tasks)", ms(middle(samples)), ms(high(samples))]
        for what, samples in (("assigned", pending), ("running", running))
    ]


def listing(argv: Sequence[str], scale: float) -> None:
    """Lists among a million tasks, while other tasks are dispatched; beside the same without lists."""
    count = max(10_000, int(1_000_000 * scale))
    with Site(argv) as site:
        site.stop("serve")
        _fill(site.folder / "data" / "scitq.db", count)
        site.start_again()
        site.agent(2)
        api = site.api()
        queries: dict[str, Any] = {
            "newest 20": TaskList(), "by status F": TaskList(status="F"), "by step": TaskList(step_id=7), "by label": TaskList(labels={"lot": "100"}),
            "by status S, page 100": TaskList(status="S", offset=2000), "rare `--command`": TaskList(command=f"echo {count - 5}"),
        }  # fmt: skip
        alone = _Stream(site)
        time.sleep(_LISTING_S)
        alone.end()
        stream = _Stream(site)
        samples: dict[str, list[float]] = {name: [] for name in queries}
        end = time.monotonic() + _LISTING_S
        while time.monotonic() < end:
            for name, query in queries.items():
                begin = time.monotonic()
                found = api.call(query, TaskRows).rows
                samples[name].append(time.monotonic() - begin)
                assert found, name
        stream.end()
        api.close()
        rows = [[f"{name} ({len(taken)} times)", ms(middle(taken)), ms(high(taken))] for name, taken in samples.items()]
        rows += _waits(site, alone.made, "no lists") + _waits(site, stream.made, "lists without pause")
    show(f"Lists with {count:,} tasks in the database, request to answer", ["", "median", "99%"], rows)
