"""Running transfers: bounded parallelism, retries with back-off, and targets that appear whole or not at all."""

from __future__ import annotations

import errno
import random
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar

from scitq.errors import CancelledError, DiskFullError, ScitqError, StorageError
from scitq.storage.base import Cancel, Entry, Failure, Progress, Storage, ignore_progress

PARALLEL_STREAMS: Final = 16
"""Streams open at one time in this process, over all storages."""
TRIES: Final = 6
CHUNK: Final = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

streams: Final = threading.BoundedSemaphore(PARALLEL_STREAMS)
_T = TypeVar("_T")


def with_retries(work: Callable[[], _T], *, cancel: Cancel, tries: int = TRIES, first_wait_s: float = 0.25) -> _T:
    """The result of `work`; errors that a later try may not meet are met by waiting (doubling, jittered) and trying again."""
    wait_s = first_wait_s
    for attempt in range(1, tries + 1):
        cancel.check()
        try:
            return work()
        except ScitqError as error:
            if cancel.is_cancelled:
                raise CancelledError("the transfer was cancelled") from error
            if not error.is_retryable or attempt == tries:
                raise
        cancel.wait(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
        wait_s = min(wait_s * 2, 8.0)
    raise AssertionError("unreachable")


@contextmanager
def local_errors(path: Path, uri: str) -> Iterator[None]:
    """Turn errors of the local disk into ours, naming the file and the URI."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise DiskFullError(f"{uri}: no room left on the disk of {path.parent} ({reason})") from error
        raise StorageError(f"{uri}: {path}: {reason}") from error


@contextmanager
def whole_file(target: Path, uri: str) -> Iterator[Path]:
    """A temporary path beside `target` to write to; renamed to `target` at the end, removed on any error."""
    temporary = target.with_name(f".scitq-{secrets.token_hex(8)}.part")
    try:
        with local_errors(target, uri):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.replace(target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def run_parallel(jobs: Sequence[Callable[[Cancel], None]], *, workers: int, cancel: Cancel) -> None:
    """Run all `jobs` in at most `workers` threads; the first error cancels the token that the others got, and is raised."""
    with cancel.child() as ours:
        if len(jobs) == 1 or workers <= 1:
            for job in jobs:
                ours.check()
                job(ours)
            return
        errors = _run_threads(jobs, workers, ours)
    cancel.check()
    if errors:
        raise next((error for error in errors if not isinstance(error, CancelledError)), errors[0])


def _run_threads(jobs: Sequence[Callable[[Cancel], None]], workers: int, cancel: Cancel) -> list[BaseException]:
    remaining = iter(jobs)
    lock = threading.Lock()
    errors: list[BaseException] = []

    def work() -> None:
        while True:
            with lock:
                job = None if errors or cancel.is_cancelled else next(remaining, None)
            if job is None:
                return
            try:
                job(cancel)
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                with lock:
                    errors.append(error)
                cancel.cancel()

    threads = [threading.Thread(target=work, name=f"transfer-{number}", daemon=True) for number in range(min(workers, len(jobs)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


class OneByOne:
    """The transfers of many files for a storage whose own unit is one file: some at a time, each by itself."""

    parallel_files = 8

    def download_many(
        self: Storage, pairs: Sequence[tuple[Entry, Path]], *, progress: Progress = ignore_progress, cancel: Cancel | None = None
    ) -> None:
        """See Storage."""

        def job(entry: Entry, target: Path) -> Callable[[Cancel], None]:
            return lambda ours: void(self.download(entry.key, target, entry=entry, progress=progress, cancel=ours))

        run_parallel([job(*pair) for pair in pairs], workers=OneByOne.parallel_files, cancel=cancel or Cancel())

    def upload_many(
        self: Storage, pairs: Sequence[tuple[Path, str]], *, progress: Progress = ignore_progress, cancel: Cancel | None = None
    ) -> list[Failure]:
        """See Storage."""
        failures: list[Failure] = []

        def job(source: Path, key: str) -> Callable[[Cancel], None]:
            def upload(ours: Cancel) -> None:
                try:
                    self.upload(source, key, progress=progress, cancel=ours)
                except CancelledError:
                    raise
                except ScitqError as error:
                    failures.append(Failure(key, error))

            return upload

        run_parallel([job(*pair) for pair in pairs], workers=OneByOne.parallel_files, cancel=cancel or Cancel())
        return sorted(failures, key=lambda failure: failure.key)


def void(_value: object) -> None:
    """Drop a value, where a function that gives none is wanted."""
