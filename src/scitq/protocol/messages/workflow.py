"""Messages about workflows and steps, as users send them.

A workflow is named by its id, or by its name: the caller's own of that name, else the only one of that name. A step is
named by its id, or by its name together with its workflow.
"""

from __future__ import annotations

from scitq.model.task import TaskSpec
from scitq.protocol.registry import USERS, Reply, Request, request


class StepRow(Reply, frozen=True, kw_only=True):
    """One step. `counts`: its tasks by status letter, without hidden ones."""

    id: int
    name: str
    workflow_id: int
    workflow: str
    retries: int = 0
    is_paused: bool = False
    created_ms: int = 0
    counts: dict[str, int] = {}
    workers: int = 0


class WorkflowRow(Reply, frozen=True, kw_only=True):
    """One workflow.

    Status: open (not finalized), suspended, canceled; and of the others empty, running, succeeded, failed (nothing of it can
    go on, and not all succeeded).
    """

    id: int
    name: str
    status: str
    user: str
    maximum_workers: int | None = None
    created_ms: int = 0
    steps: int = 0
    counts: dict[str, int] = {}


class WorkflowRows(Reply, frozen=True, kw_only=True):
    """Workflows, newest first."""

    rows: list[WorkflowRow]


@request("workflow.create", USERS, WorkflowRow)
class WorkflowCreate(Request, frozen=True, kw_only=True):
    """A new, open workflow. `template`: the text of the file that it is made from, for the record."""

    name: str
    maximum_workers: int | None = None
    template: str = ""


@request("workflow.list", USERS, WorkflowRows)
class WorkflowList(Request, frozen=True, kw_only=True):
    """Filters combine; the offset counts after them; limit 0 means all."""

    limit: int = 20
    offset: int = 0
    name: str | None = None
    user: str | None = None


class WorkflowDetails(Reply, frozen=True, kw_only=True):
    """One workflow with its steps, in the order in which they were made."""

    workflow: WorkflowRow
    steps: list[StepRow]
    template: str = ""


@request("workflow.show", USERS, WorkflowDetails)
class WorkflowShow(Request, frozen=True, kw_only=True):
    """Everything about a workflow."""

    id: int | None = None
    name: str | None = None


class GroupActed(Reply, frozen=True, kw_only=True):
    """How many tasks were changed by this request, and how many are left for the next one: ask again until none is."""

    id: int
    status: str
    changed: int
    remaining: int
    """How many are left at least; none when it is all done."""
    ids: list[int] = []
    """For a retry: the new tasks."""


@request("workflow.act", USERS, GroupActed)
class WorkflowAct(Request, frozen=True, kw_only=True):
    """One of: finalize (inactive tasks become pending or waiting), suspend, resume, cancel."""

    action: str
    id: int | None = None
    name: str | None = None


@request("workflow.update", USERS, WorkflowRow)
class WorkflowUpdate(Request, frozen=True, kw_only=True):
    """Change the name, or how many workers may work for it at once (0: any number)."""

    id: int | None = None
    name: str | None = None
    new_name: str | None = None
    maximum_workers: int | None = None


@request("workflow.delete", USERS, GroupActed)
class WorkflowDelete(Request, frozen=True, kw_only=True):
    """Remove a workflow whose tasks have all ended: steps, recruiters, tasks and logs."""

    id: int | None = None
    name: str | None = None


class WorkflowWaited(Reply, frozen=True, kw_only=True):
    """Where a workflow stands. `is_over`: nothing of it can go on by itself."""

    is_over: bool
    status: str
    counts: dict[str, int]


@request("workflow.wait", USERS, WorkflowWaited)
class WorkflowWait(Request, frozen=True, kw_only=True):
    """Answered when the workflow is over, or after `at_most_s`, or when the counts differ from `unless_counts` (when given)."""

    id: int | None = None
    name: str | None = None
    at_most_s: float = 20.0
    unless_counts: dict[str, int] = {}


class TaskContent(Reply, frozen=True, kw_only=True):
    """What a task holds and waits for, and where it is."""

    id: int
    status: str
    worker_id: int | None
    spec: TaskSpec
    depends_on: list[int]
    after_any: list[int]


class TasksContents(Reply, frozen=True, kw_only=True):
    """In the order asked for."""

    tasks: list[TaskContent]


@request("task.contents", USERS, TasksContents)
class TaskContents(Request, frozen=True, kw_only=True):
    """What some tasks hold (at most 500 at a time), to be compared with a workflow's file; task.show tells much more and takes longer."""

    ids: list[int]


class Again(Reply, frozen=True, kw_only=True):
    """A task to be made anew: which one, with what content, and what it waits for besides what it waited for before."""

    id: int
    spec: TaskSpec
    retries: int = 0
    depends_on: list[int] = []
    after_any: list[int] = []


class TasksRepeated(Reply, frozen=True, kw_only=True):
    """The new ids, in the order of the request."""

    ids: list[int]


@request("workflow.repeat", USERS, TasksRepeated)
class WorkflowRepeat(Request, frozen=True, kw_only=True):
    """Hide tasks of a workflow and make them anew with what the workflow's file says now; all or none.

    Those that are with a worker are refused; those that have not started are canceled first.
    """

    tasks: list[Again]


class StepRows(Reply, frozen=True, kw_only=True):
    """Steps by id."""

    rows: list[StepRow]


@request("step.create", USERS, StepRow)
class StepCreate(Request, frozen=True, kw_only=True):
    """A new step; `retries`: how often each of its tasks is tried again by itself. `is_existing_fine`: give the one of that name."""

    name: str
    workflow_id: int | None = None
    workflow_name: str | None = None
    retries: int = 0
    is_existing_fine: bool = False


@request("step.list", USERS, StepRows)
class StepList(Request, frozen=True, kw_only=True):
    """The steps of a workflow, or all."""

    workflow_id: int | None = None
    workflow_name: str | None = None


@request("step.show", USERS, StepRow)
class StepShow(Request, frozen=True, kw_only=True):
    """One step."""

    id: int | None = None
    name: str | None = None
    workflow_id: int | None = None
    workflow_name: str | None = None


class Spread(Reply, frozen=True, kw_only=True):
    """Least, mean and most of some measure, and over how many tasks."""

    count: int = 0
    least: float = 0.0
    mean: float = 0.0
    most: float = 0.0


class StepStats(Reply, frozen=True, kw_only=True):
    """Figures of one step, or of all asked for together (id 0). Times in seconds, from the start to the end of a task."""

    id: int
    name: str
    workflow_id: int
    counts: dict[str, int]
    retried: int = 0
    """Attempts that were repeated, and are hidden now."""
    succeeded_s: Spread = Spread()
    failed_s: Spread = Spread()
    cpu_s: Spread = Spread()
    cpu_percent: float | None = None
    """CPU time used for each second that tasks ran; 100 is one CPU."""
    memory_bytes: Spread = Spread()
    downloaded_bytes: int = 0
    uploaded_bytes: int = 0
    first_started_ms: int | None = None
    last_ended_ms: int | None = None


class StepStatsRows(Reply, frozen=True, kw_only=True):
    """In the order of the steps; the totals last when they were asked for."""

    rows: list[StepStats]


@request("step.stats", USERS, StepStatsRows)
class StepStatsAsk(Request, frozen=True, kw_only=True):
    """Figures of some steps, of all steps of a workflow, or of all steps there are."""

    ids: list[int] = []
    workflow_id: int | None = None
    workflow_name: str | None = None
    with_totals: bool = False


@request("step.act", USERS, GroupActed)
class StepAct(Request, frozen=True, kw_only=True):
    """One of: pause (no more of its tasks are given to workers), resume, retry (all failed ones; `retries` more times by themselves)."""

    id: int
    action: str
    retries: int | None = None


@request("step.update", USERS, StepRow)
class StepUpdate(Request, frozen=True, kw_only=True):
    """Change how often tasks that come later are tried again."""

    id: int
    retries: int


@request("step.delete", USERS, GroupActed)
class StepDelete(Request, frozen=True, kw_only=True):
    """Remove a step whose tasks have all ended."""

    id: int
