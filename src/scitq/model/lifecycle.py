"""THE table of task states: which event leads from which status to which; nothing else decides (contract ST-1)."""

from __future__ import annotations

from enum import StrEnum

from scitq.errors import ConflictError


class TaskStatus(StrEnum):
    """The fourteen letters of the user guide."""

    WAITING = "W"
    PENDING = "P"
    ASSIGNED = "A"
    ACCEPTED = "C"
    DOWNLOADING = "D"
    ON_HOLD = "O"
    RUNNING = "R"
    UPLOADING = "U"
    UPLOADING_FAILED = "V"
    SUCCEEDED = "S"
    FAILED = "F"
    SUSPENDED = "Z"
    CANCELED = "X"
    INACTIVE = "I"


class TaskEvent(StrEnum):
    """What can happen to a task."""

    FINALIZE_READY = "finalize_ready"
    FINALIZE_WAITING = "finalize_waiting"
    DEPENDENCIES_MET = "dependencies_met"
    DEPENDENCY_UNDONE = "dependency_undone"
    SUSPEND = "suspend"
    RESUME_WAITING = "resume_waiting"
    RESUME_READY = "resume_ready"
    RESUME_RUNNING = "resume_running"
    CANCEL = "cancel"
    ASSIGN = "assign"
    ACCEPT = "accept"
    DECLINE = "decline"
    FETCH = "fetch"
    FETCHED = "fetched"
    START = "start"
    SKIP = "skip"
    FAIL = "fail"
    FREEZE = "freeze"
    EXITED_WELL = "exited_well"
    EXITED_BADLY = "exited_badly"
    ENDED_WELL = "ended_well"
    ENDED_BADLY = "ended_badly"
    UPLOADED = "uploaded"
    UPLOAD_FAILED = "upload_failed"
    UPLOAD_AGAIN = "upload_again"
    UPLOAD_AGAIN_BAD = "upload_again_bad"
    WORKER_LOST = "worker_lost"


_S = TaskStatus
_E = TaskEvent

TABLE: dict[tuple[TaskStatus, TaskEvent], TaskStatus] = {
    (_S.INACTIVE, _E.FINALIZE_READY): _S.PENDING,
    (_S.INACTIVE, _E.FINALIZE_WAITING): _S.WAITING,
    (_S.INACTIVE, _E.CANCEL): _S.CANCELED,
    (_S.WAITING, _E.DEPENDENCIES_MET): _S.PENDING,
    (_S.WAITING, _E.SUSPEND): _S.SUSPENDED,
    (_S.WAITING, _E.CANCEL): _S.CANCELED,
    (_S.PENDING, _E.DEPENDENCY_UNDONE): _S.WAITING,
    (_S.PENDING, _E.ASSIGN): _S.ASSIGNED,
    (_S.PENDING, _E.SUSPEND): _S.SUSPENDED,
    (_S.PENDING, _E.CANCEL): _S.CANCELED,
    (_S.ASSIGNED, _E.ACCEPT): _S.ACCEPTED,
    (_S.ACCEPTED, _E.FETCH): _S.DOWNLOADING,
    (_S.DOWNLOADING, _E.FETCHED): _S.ON_HOLD,
    (_S.ON_HOLD, _E.START): _S.RUNNING,
    (_S.RUNNING, _E.FREEZE): _S.SUSPENDED,
    (_S.RUNNING, _E.EXITED_WELL): _S.UPLOADING,
    (_S.RUNNING, _E.EXITED_BADLY): _S.UPLOADING_FAILED,
    (_S.RUNNING, _E.ENDED_WELL): _S.SUCCEEDED,
    (_S.RUNNING, _E.ENDED_BADLY): _S.FAILED,
    (_S.RUNNING, _E.WORKER_LOST): _S.FAILED,
    (_S.UPLOADING, _E.UPLOADED): _S.SUCCEEDED,
    (_S.UPLOADING, _E.UPLOAD_FAILED): _S.FAILED,
    (_S.UPLOADING, _E.WORKER_LOST): _S.FAILED,
    (_S.UPLOADING_FAILED, _E.UPLOADED): _S.FAILED,
    (_S.UPLOADING_FAILED, _E.UPLOAD_FAILED): _S.FAILED,
    (_S.UPLOADING_FAILED, _E.WORKER_LOST): _S.FAILED,
    (_S.SUSPENDED, _E.RESUME_WAITING): _S.WAITING,
    (_S.SUSPENDED, _E.RESUME_READY): _S.PENDING,
    (_S.SUSPENDED, _E.RESUME_RUNNING): _S.RUNNING,
    (_S.SUSPENDED, _E.CANCEL): _S.CANCELED,
    (_S.SUSPENDED, _E.EXITED_WELL): _S.UPLOADING,
    (_S.SUSPENDED, _E.EXITED_BADLY): _S.UPLOADING_FAILED,
    (_S.SUSPENDED, _E.ENDED_WELL): _S.SUCCEEDED,
    (_S.SUSPENDED, _E.ENDED_BADLY): _S.FAILED,
    (_S.SUSPENDED, _E.WORKER_LOST): _S.FAILED,
    (_S.FAILED, _E.UPLOAD_AGAIN): _S.UPLOADING,
    (_S.FAILED, _E.UPLOAD_AGAIN_BAD): _S.UPLOADING_FAILED,
}
for _early in (_S.ASSIGNED, _S.ACCEPTED, _S.DOWNLOADING, _S.ON_HOLD):
    TABLE[_early, _E.DECLINE] = _S.PENDING
    TABLE[_early, _E.WORKER_LOST] = _S.PENDING
    TABLE[_early, _E.CANCEL] = _S.CANCELED
    TABLE[_early, _E.FAIL] = _S.FAILED
    if _early is not _S.ASSIGNED:
        TABLE[_early, _E.SKIP] = _S.SUCCEEDED

FINAL = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELED})
"""Where a task rests; only a retry (a new task) or another upload leads on."""

ON_WORKER = frozenset({_S.ASSIGNED, _S.ACCEPTED, _S.DOWNLOADING, _S.ON_HOLD, _S.RUNNING, _S.UPLOADING, _S.UPLOADING_FAILED})
"""Held by a worker; a frozen task (Z with a worker) is too."""

STARTED = frozenset({_S.RUNNING, _S.UPLOADING, _S.UPLOADING_FAILED})
"""The command has been started."""

NAMES: dict[TaskStatus, str] = {
    _S.WAITING: "waiting",
    _S.PENDING: "pending",
    _S.ASSIGNED: "assigned",
    _S.ACCEPTED: "accepted",
    _S.DOWNLOADING: "downloading",
    _S.ON_HOLD: "on hold",
    _S.RUNNING: "running",
    _S.UPLOADING: "uploading",
    _S.UPLOADING_FAILED: "uploading (failed)",
    _S.SUCCEEDED: "succeeded",
    _S.FAILED: "failed",
    _S.SUSPENDED: "suspended",
    _S.CANCELED: "canceled",
    _S.INACTIVE: "inactive",
}


def after(status: TaskStatus, event: TaskEvent) -> TaskStatus:
    """The status that `event` leads to; ConflictError when the table has no such change."""
    found = TABLE.get((status, event))
    if found is None:
        raise ConflictError(f"a task that is {NAMES[status]} ({status.value}) can't take the event '{event.value}'")
    return found
