"""Takes a task's results away: all that lies in /output, whether the task succeeded or not (contract section 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from scitq.agent import manifest, outputs
from scitq.agent.data import Counter, Progress, open_storages
from scitq.agent.folders import DataContext, TaskFolders
from scitq.errors import CancelledError, ScitqError, StorageError
from scitq.model.task import TaskSpec
from scitq.model.uri import Uri
from scitq.protocol.messages.agent import Assignment
from scitq.storage.base import Cancel
from scitq.storage.registry import Storages

_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Shipped:
    """What was uploaded, over all targets. warnings: for the task's log."""

    uploaded_bytes: int
    warnings: list[str]


def has_output(spec: TaskSpec, *, succeeded: bool) -> bool:
    """Whether there is anything to upload to: else the content of /output is dropped (OUT-6)."""
    return bool(_targets(spec, succeeded))


def ship(
    assignment: Assignment, folders: TaskFolders, context: DataContext, progress: Progress, cancel: Cancel, succeeded: bool
) -> Shipped:
    """Upload /output to the task's output, and on success to what it publishes to.

    Everything that can be uploaded is; then StorageError names what could not, and the files stay where they are.
    """
    spec = assignment.spec
    targets = _targets(spec, succeeded)
    if not targets:
        return Shipped(0, [])
    found = outputs.walk(folders.output, cancel)
    if spec.skip_if_exists:
        found.files = [file for file in found.files if file[1] != manifest.NAME]
    storages = open_storages(context)
    counter = Counter(progress)
    counter.expect(len(targets) * sum(size for _path, _key, size in found.files))
    failures = list(found.failures)
    uploaded = 0
    for target in targets:
        marks = spec.skip_if_exists and succeeded and not failures
        sent, failed = _upload(assignment.task_id, storages, target, found.files, counter, cancel, unmarks=spec.skip_if_exists, marks=marks)
        uploaded += sent
        failures += failed
    if failures:
        more = f", and {len(failures) - _SHOWN} more" if len(failures) > _SHOWN else ""
        raise StorageError(f"{len(failures)} of the results could not be uploaded: {'; '.join(failures[:_SHOWN])}{more}")
    return Shipped(uploaded, found.warnings)


def is_complete(assignment: Assignment, context: DataContext, cancel: Cancel) -> bool:
    """Whether the task asks to be skipped when its results are there, and every one of its targets holds a completed result."""
    spec = assignment.spec
    targets = _targets(spec, True)
    if not spec.skip_if_exists or not targets:
        return False
    storages = open_storages(context)
    return all(manifest.is_complete(storages.get(target.scheme), target, cancel) for target in targets)


def _targets(spec: TaskSpec, succeeded: bool) -> list[Uri]:
    texts = [spec.output, spec.publish if succeeded else None]
    return list(dict.fromkeys(Uri.parse_output(text) for text in texts if text))


def _upload(
    task_id: int,
    storages: Storages,
    target: Uri,
    files: Sequence[outputs.File],
    counter: Counter,
    cancel: Cancel,
    *,
    unmarks: bool,
    marks: bool,
) -> tuple[int, list[str]]:
    """Upload all to one target; returns the bytes that arrived, and what failed. The mark comes last and only when all is there."""
    try:
        storage = storages.get(target.scheme)
        if unmarks:
            manifest.remove(storage, target)
        pairs = [(path, target.path + key) for path, key, _size in files]
        failed = storage.upload_many(pairs, progress=counter.add, cancel=cancel) if pairs else []
        lost = {failure.key for failure in failed}
        sent = sum(size for _path, key, size in files if target.path + key not in lost)
        if marks and not failed:
            manifest.write(storage, target, task_id, {key: size for _path, key, size in files}, cancel)
    except CancelledError:
        raise
    except ScitqError as error:
        return 0, [error.message]
    return sent, [failure.error.message for failure in failed]
