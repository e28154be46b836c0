"""`file copy`: which paths are local, what goes where, and Ctrl-C that leaves nothing half made (contract FC-1 to FC-6)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scitq.client.files import Server, Transfers, watch_copy
from scitq.errors import CancelledError, NotFoundError, ScitqError, StorageError, UsageError
from scitq.model.uri import Uri, name_matches
from scitq.protocol.messages import file as m
from scitq.storage.base import Cancel
from scitq.storage.transfer import run_parallel, whole_file
from scitq.util import files

_URI: Final = re.compile(r"[\w.+@ -]+://")
_END_S: Final = 15.0


@dataclass(slots=True)
class Copied:
    """What was done; `skipped` is for people."""

    files: int = 0
    bytes: int = 0
    skipped: tuple[str, ...] = ()


Show = Callable[[int, int], None]
"""Told bytes done and bytes to do."""


def is_remote(word: str) -> bool:
    """Whether `word` is a URI: what exists on disk wins, and `./` or `/` in front forces local."""
    return _URI.match(word) is not None and not os.path.lexists(word)


def copy(server: Callable[[], Server], sources: Sequence[str], target: str, show: Show) -> Copied:
    """Copy `sources` to `target`; several need a folder. Ctrl-C and SIGTERM call all off first and leave no partial file.

    server: connects when it is asked; between local paths it is not.
    """
    job = _Job(server, sources, target, show)
    return _interruptible(job.run, job.cancel)


class _Job:
    def __init__(self, server: Callable[[], Server], sources: Sequence[str], target: str, show: Show) -> None:
        self._server, self._sources, self._target, self._show = server, sources, target, show
        self._lock = threading.Lock()
        self._done = self._total = 0
        self.cancel = Cancel()
        self.skipped: list[str] = []

    def run(self) -> Copied:
        """All sources, one kind after the other."""
        remote = [source for source in self._sources if is_remote(source)]
        local = [source for source in self._sources if not is_remote(source)]
        if not self._sources or not all([*self._sources, self._target]):
            raise UsageError("a path is empty")
        is_several = len(self._sources) > 1
        copied = Copied()
        if is_remote(self._target):
            uri = Uri.parse(self._target)
            if uri.actions or "*" in self._target:
                raise UsageError(f"{self._target!r}: a target has neither actions nor *; write | within a name as %7C")
            for source in remote:
                self._add(copied, self._between(source, uri, is_several))
            if local:
                self._add(copied, self._upload(local, uri, is_several))
        else:
            if local:
                self._add(copied, self._locally(local, is_several))
            if remote:
                self._add(copied, self._download(remote, is_several))
        copied.skipped = tuple(self.skipped)
        return copied

    def _add(self, copied: Copied, more: tuple[int, int]) -> None:
        copied.files += more[0]
        copied.bytes += more[1]

    def _expect(self, count: int) -> None:
        with self._lock:
            self._total += count
        self._show(self._done, self._total)

    def _progress(self, count: int) -> None:
        with self._lock:
            self._done += count
        self._show(self._done, self._total)

    def _between(self, source: str, target: Uri, is_several: bool) -> tuple[int, int]:
        if is_several and not target.is_folder:
            target = Uri(target.scheme, f"{target.path}/")
        state = watch_copy(
            self._server(), source, str(target), lambda state: self._show(state.done_bytes, state.total_bytes), self.cancel
        )  # fmt: skip
        return state.total_files, state.total_bytes

    def _upload(self, sources: Sequence[str], target: Uri, is_several: bool) -> tuple[int, int]:
        found = self._local_files(sources, is_several)
        is_single = not is_several and len(found) == 1 and found[0][1] == "" and not target.is_folder and bool(target.key)
        base = target.path.rstrip("/")
        pairs = [
            (path, str(Uri(target.scheme, target.path if is_single else f"{base}/{relative or path.name}"))) for path, relative in found
        ]
        return self._with_transfers(lambda transfers: transfers.upload(pairs), [path for path, _uri in pairs])

    def _with_transfers(self, work: Callable[[Transfers], None], paths: Sequence[Path]) -> tuple[int, int]:
        total = sum(path.stat().st_size for path in paths)
        self._expect(total)
        transfers = Transfers(self._server(), self._progress, self.cancel)
        try:
            work(transfers)
        finally:
            transfers.close()
        return len(paths), total

    def _download(self, sources: Sequence[str], is_several: bool) -> tuple[int, int]:
        server = self._server()
        pairs: list[tuple[m.FileRow, Path]] = []
        for source in sources:
            rows = server.call(m.FileFind(uri=source), m.FileRows)
            if rows.is_cut:
                raise UsageError(f"{source}: too many files for one copy; copy its folders one after the other")
            uri = Uri.parse(source)
            is_single = len(rows.rows) == 1 and rows.rows[0].uri == uri.location
            for row in rows.rows:
                pairs.append((row, self._local_target(row.path, is_single=is_single and not is_several)))
        _refuse_doubles([target for _row, target in pairs])
        total = sum(max(row.size, 0) for row, _target in pairs)
        self._expect(total)
        transfers = Transfers(server, self._progress, self.cancel)
        try:
            transfers.download(pairs)
        finally:
            transfers.close()
        return len(pairs), total

    def _locally(self, sources: Sequence[str], is_several: bool) -> tuple[int, int]:
        found = self._local_files(sources, is_several)
        is_single = not is_several and len(found) == 1 and found[0][1] == ""
        pairs = [(path, self._local_target(relative or path.name, is_single=is_single)) for path, relative in found]
        _refuse_doubles([target for _source, target in pairs])
        total = sum(path.stat().st_size for path, _target in pairs)
        self._expect(total)

        def job(source: Path, target: Path) -> Callable[[Cancel], None]:
            return lambda cancel: self._copy_locally(source, target, cancel)

        run_parallel([job(*pair) for pair in pairs], workers=4, cancel=self.cancel)
        return len(pairs), total

    def _copy_locally(self, source: Path, target: Path, cancel: Cancel) -> None:
        if os.path.lexists(target) and source.samefile(target):
            raise UsageError(f"{source} and {target} are the same file")
        with whole_file(target, str(source)) as temporary, source.open("rb") as reader, temporary.open("xb") as writer:
            while chunk := reader.read(1 << 20):
                cancel.check()
                writer.write(chunk)
                self._progress(len(chunk))
            shutil.copymode(source, temporary)

    def _local_target(self, relative: str, *, is_single: bool) -> Path:
        target = Path(self._target)
        is_folder = self._target.endswith("/") or target.is_dir()
        if is_single and not is_folder:
            return target
        if target.exists() and not target.is_dir():
            raise UsageError(f"{self._target} is a file; several files need a folder")
        return files.join_inside(target, relative)

    def _local_files(self, sources: Sequence[str], is_several: bool) -> list[tuple[Path, str]]:
        """Files with their paths relative to the target; an empty one stands for a single file under its own name."""
        found: list[tuple[Path, str]] = []
        for source in sources:
            if os.path.lexists(source) or "*" not in source:
                found += self._below(Path(source), keeps_name=is_several)
            else:
                matched = _glob(source)
                if not matched:
                    raise NotFoundError(f"{source!r} matches no file here")
                for path in matched:
                    found += [(inner, relative or inner.name) for inner, relative in self._below(path, keeps_name=True)]
        if not found:
            raise NotFoundError(f"there is no file in {', '.join(sources)}")
        return found

    def _below(self, source: Path, *, keeps_name: bool) -> list[tuple[Path, str]]:
        try:
            kind = source.stat().st_mode
        except OSError as error:
            raise NotFoundError(f"{source}: {error.strerror}; a storage's file is written storage://bucket/path") from None
        if stat.S_ISREG(kind):
            return [(source, "")]
        if not stat.S_ISDIR(kind):
            raise UsageError(f"{source} is neither a file nor a folder")
        found = []
        for folder, folders, names in os.walk(source):
            folders.sort()
            for name in sorted([*names, *(name for name in folders if (Path(folder) / name).is_symlink())]):
                path = Path(folder) / name
                if path.is_file():
                    relative = path.relative_to(source)
                    found.append((path, str(Path(source.resolve().name) / relative if keeps_name else relative)))
                else:
                    self.skipped.append(f"{path} is no regular file (a link to a folder or to nothing, a FIFO, a device) and was left out")
        return found


def _glob(pattern: str) -> list[Path]:
    """Local paths that `pattern` matches, in which only `*` is special."""
    folders = [Path("/") if pattern.startswith("/") else Path()]
    for part in [part for part in pattern.split("/") if part]:
        if "*" not in part:
            folders = [folder / part for folder in folders if os.path.lexists(folder / part)]
            continue
        folders = [child for folder in folders if folder.is_dir() for child in sorted(folder.iterdir()) if name_matches(part, child.name)]
    return folders


def _refuse_doubles(targets: Sequence[Path]) -> None:
    if len(set(targets)) != len(targets):
        double = next(target for number, target in enumerate(targets) if target in targets[:number])
        raise UsageError(f"two of the files would both become {double}; copy them one after the other")


def _interruptible(work: Callable[[], Copied], cancel: Cancel) -> Copied:
    """Run `work` in a thread, so that Ctrl-C, SIGTERM and SIGHUP reach somebody who can call it off and wait for its end.

    An event tells the end: a `join` that Ctrl-C interrupts takes the thread for ended (bpo-45274).
    """
    has_ended = threading.Event()
    results: list[Copied] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            errors.append(error)
        finally:
            has_ended.set()

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=run, name="copy", daemon=True).start()
    try:
        while not has_ended.wait(0.2):
            pass
    except BaseException:
        cancel.cancel()
        has_ended.wait(_END_S)
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
    if errors:
        error = errors[0]
        if isinstance(error, OSError) and not isinstance(error, ScitqError):
            raise StorageError(f"{error.filename or 'a file'}: {error.strerror}") from error
        if isinstance(error, CancelledError):
            raise KeyboardInterrupt
        raise error
    return results[0]
