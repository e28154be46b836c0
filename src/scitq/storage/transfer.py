"""Running transfers: bounded parallelism, retries with back-off, and targets that appear whole or not at all."""

from __future__ import annotations

import errno
import itertools
import os
import random
import secrets
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from scitq.errors import CancelledError, DiskFullError, ScitqError, StorageError
from scitq.storage.base import Cancel, Entry, Failure, Progress, Storage, ignore_progress

PARALLEL_STREAMS: Final = 16
"""Streams open at one time in this process, over all storages."""
TRIES: Final = 6
FIRST_WAIT_S: Final = 0.25
CHUNK: Final = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

_slots: Final = threading.BoundedSemaphore(PARALLEL_STREAMS)
_local: Final = threading.local()
_OWN: Final = f".scitq-{secrets.token_hex(8)}-"
_numbers: Final = itertools.count()
_T = TypeVar("_T")


def with_retries(work: Callable[[], _T], *, cancel: Cancel, tries: int = TRIES, done: Callable[[], int] = lambda: 0) -> _T:
    """The result of `work`; errors that a later try may not meet are met by waiting (doubling, jittered) and trying again.

    done: how far the work has come; a try that got further starts the count of tries anew.
    """
    wait_s, attempt = FIRST_WAIT_S, 0
    while True:
        cancel.check()
        before = done()
        try:
            return work()
        except ScitqError as error:
            if cancel.is_cancelled:
                raise CancelledError("the transfer was cancelled") from error
            if done() > before:
                wait_s, attempt = FIRST_WAIT_S, 0
            attempt += 1
            if not error.is_retryable or attempt == tries:
                raise
        cancel.wait(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
        wait_s = min(wait_s * 2, 8.0)


@contextmanager
def stream_slot(cancel: Cancel) -> Iterator[None]:
    """Hold one of the process's streams; only around the transfer of one piece to or from a file, never around another slot."""
    while not _slots.acquire(timeout=0.2):
        cancel.check()
    try:
        yield
    finally:
        _slots.release()


def buffer() -> memoryview:
    """This thread's own buffer of CHUNK bytes, for the time until it asks again."""
    held: memoryview | None = getattr(_local, "buffer", None)
    if held is None:
        held = _local.buffer = memoryview(bytearray(CHUNK))
    return held


def open_regular(path: Path, *, flags: int = 0) -> BinaryIO:
    """Open a regular file for reading, and never hang on a FIFO; OSError for everything else."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | flags)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"{path} is no regular file")
    return os.fdopen(descriptor, "rb", buffering=0)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data` at the file's position."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def write_at(descriptor: int, data: memoryview, offset: int) -> None:
    """Write all of `data` at `offset`."""
    while data:
        count = os.pwrite(descriptor, data, offset)
        data, offset = data[count:], offset + count


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
    temporary = target.with_name(f"{_OWN}{next(_numbers)}.part")
    try:
        with local_errors(target, uri):
            if not os.access(target.parent, os.F_OK):
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
