"""Messages about tasks, as users send them."""

from __future__ import annotations

from scitq.model.task import NewTask, TaskSpec, Use
from scitq.protocol.registry import USERS, Reply, Request, request


class TasksCreated(Reply, frozen=True, kw_only=True):
    """Ids in the order of the request. `existing`: positions of tasks that a key found already made."""

    ids: list[int]
    existing: list[int] = []
    array_id: int | None = None


@request("task.create", USERS, TasksCreated)
class TaskCreate(Request, frozen=True, kw_only=True):
    """Create tasks, all or none. `specs` are shared by position (NewTask.spec).

    `array_id` goes on with an array begun by an earlier request; `array_most_running` and `array_max_fails` hold for
    the array as a whole (a new array is made when one of them or `is_array` is given and `array_id` is not).
    `is_dry_run`: check everything, create nothing.
    """

    specs: list[TaskSpec]
    tasks: list[NewTask]
    is_array: bool = False
    array_id: int | None = None
    array_most_running: int | None = None
    array_max_fails: int | None = None
    is_dry_run: bool = False


class KeysChecked(Reply, frozen=True, kw_only=True):
    """Keys that are taken by a task of other content, each with that task."""

    taken: dict[str, int]


@request("task.check_keys", USERS, KeysChecked)
class TaskCheckKeys(Request, frozen=True, kw_only=True):
    """Would creating tasks of these keys and digests (model.task.digest) conflict with what the caller has?"""

    digests: dict[str, bytes]


class TaskRow(Reply, frozen=True, kw_only=True):
    """A task in a list; times in Unix ms."""

    id: int
    status: str
    name: str
    user: str
    command: str
    container: str
    created_ms: int
    changed_ms: int
    started_ms: int | None = None
    ended_ms: int | None = None
    worker_id: int | None = None
    step_id: int | None = None
    workflow_id: int | None = None
    exit_status: int | None = None
    reason: str = ""
    attempt: int = 0
    priority: int = 0
    predecessor_id: int | None = None
    successor_id: int | None = None
    array_id: int | None = None
    array_index: int | None = None
    labels: dict[str, str] = {}


class TaskRows(Reply, frozen=True, kw_only=True):
    """Tasks, newest first. `total` is counted only when it was asked for."""

    rows: list[TaskRow]
    total: int | None = None


@request("task.list", USERS, TaskRows)
class TaskList(Request, frozen=True, kw_only=True):
    """Filters combine; the offset counts after them; limit 0 means all. `ids`: list of (first, last, stride) ranges."""

    limit: int = 20
    offset: int = 0
    status: str = ""
    worker_id: int | None = None
    step_id: int | None = None
    has_no_step: bool = False
    workflow_id: int | None = None
    command: str | None = None
    name: str | None = None
    labels: dict[str, str] = {}
    user: str | None = None
    since_ms: int | None = None
    array_id: int | None = None
    ids: list[tuple[int, int, int]] | None = None
    show_hidden: bool = False
    is_oldest_first: bool = False
    with_total: bool = False


class TaskChange(Reply, frozen=True, kw_only=True):
    """One line of a task's journal."""

    at_ms: int
    status: str
    attempt: int
    worker_id: int | None = None
    reason: str = ""


class TaskDetails(Reply, frozen=True, kw_only=True):
    """All that is known of a task."""

    row: TaskRow
    spec: TaskSpec
    key: str | None = None
    item: str | None = None
    retries_left: int = 0
    depends_on: list[int] = []
    after_any: list[int] = []
    waited_by: list[int] = []
    changes: list[TaskChange] = []
    state_ms: dict[str, int] = {}
    use: Use | None = None
    progress: dict[str, int] = {}
    chain: list[int] = []
    log_bytes: int = 0


class TasksDetails(Reply, frozen=True, kw_only=True):
    """Details in the order asked for."""

    tasks: list[TaskDetails]


@request("task.show", USERS, TasksDetails)
class TaskShow(Request, frozen=True, kw_only=True):
    """Everything about some tasks (at most 1,000 at a time)."""

    ids: list[int]


class TaskIds(Reply, frozen=True, kw_only=True):
    """Ids by selection."""

    ids: list[int]


@request("task.find", USERS, TaskIds)
class TaskFind(Request, frozen=True, kw_only=True):
    """Turn a selection into ids that exist, in ascending order: ranges (first, last, stride), or the caller's last task.

    A single id (first = last) that does not exist is a not_found error; holes inside ranges are not.
    """

    ranges: list[tuple[int, int, int]] = []
    is_last: bool = False


class TaskRetried(Reply, frozen=True, kw_only=True):
    """The new ids, in the order of the request."""

    ids: list[int]


@request("task.retry", USERS, TaskRetried)
class TaskRetry(Request, frozen=True, kw_only=True):
    """Hide each task and make a new one of the same content (all or none)."""

    ids: list[int]
    retries: int | None = None
    is_forced: bool = False


class TaskActed(Reply, frozen=True, kw_only=True):
    """What became of each id: the status it has now."""

    statuses: list[str]


@request("task.act", USERS, TaskActed)
class TaskAct(Request, frozen=True, kw_only=True):
    """One of: cancel, kill, stop (let it end in its own way, SIGTERM first), suspend, resume, upload. All or none."""

    ids: list[int]
    action: str
    reason: str = ""


@request("task.edit", USERS)
class TaskEdit(Request, frozen=True, kw_only=True):
    """Change what a task that no worker has yet may have changed."""

    ids: list[int]
    priority: int | None = None
    name: str | None = None
    labels: dict[str, str] | None = None
    retries: int | None = None


@request("task.delete", USERS)
class TaskDelete(Request, frozen=True, kw_only=True):
    """Remove ended tasks, their attempts and their logs."""

    ids: list[int]


class TaskWaited(Reply, frozen=True, kw_only=True):
    """Where the waited-for tasks stand now. `is_over`: the condition holds. `successors`: of those retried meanwhile."""

    is_over: bool
    counts: dict[str, int]
    failed: list[int] = []
    ended: list[int] = []
    successors: dict[int, int] = {}


@request("task.wait", USERS, TaskWaited)
class TaskWait(Request, frozen=True, kw_only=True):
    """Answered when all (or any) of the tasks have ended, or after `at_most_s`; ranges as in task.find.

    A task that was retried counts as its successor; one that will be retried by itself has not ended.
    """

    ranges: list[tuple[int, int, int]]
    is_any: bool = False
    at_most_s: float = 20.0
    unless_counts: dict[str, int] = {}
    """Answer earlier when the counts differ from these (for a progress bar); empty: don't."""


class TaskLog(Reply, frozen=True, kw_only=True):
    """A piece of a task's log: framed records (docs/protocol.md, "Logs"), the offset after it, and whether more can come."""

    data: bytes
    next_offset: int
    size: int
    is_ended: bool


@request("task.output", USERS, TaskLog)
class TaskOutput(Request, frozen=True, kw_only=True):
    """Read a log from `offset`; `at_most_s` > 0 waits for more when there is none yet and the task has not ended.

    `tail_lines` starts that many lines before the end (of `streams`: 1 stdout, 2 stderr, 3 notes of scitq).
    """

    id: int
    offset: int = 0
    most_bytes: int = 1 << 20
    at_most_s: float = 0.0
    tail_lines: int | None = None
    streams: tuple[int, ...] = (1, 2, 3)


class TaskExplained(Reply, frozen=True, kw_only=True):
    """Why a task is where it is, the weightiest reason first."""

    id: int
    status: str
    reasons: list[str]


@request("task.explain", USERS, TaskExplained)
class TaskExplain(Request, frozen=True, kw_only=True):
    """Why is it not running?"""

    id: int


class QueueCounts(Reply, frozen=True, kw_only=True):
    """Tasks that are not hidden, by status letter; and those that run now."""

    counts: dict[str, int]


@request("task.count", USERS, QueueCounts)
class TaskCount(Request, frozen=True, kw_only=True):
    """How many tasks stand in each status, of all, or of one step or workflow."""

    step_id: int | None = None
    workflow_id: int | None = None
