"""`scitq file copy`: between this machine and the storages, and among the storages (contract FC-1 to FC-6)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from scitq.commands.context import Context
from scitq.errors import EXIT_OK, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What and where to."""
    add = parser.add_argument
    add(
        "paths",
        metavar="SOURCE… TARGET",
        nargs="+",
        help="files or folders, here or on a storage (storage://bucket/path, where * matches names), and where they go; "
        "a target that ends with / is a folder; what exists on disk is local, ./ in front says so",
    )


def run(context: Context) -> int:
    """Copy; a bar on a terminal only."""
    from scitq.client.copying import copy
    from scitq.client.files import Server
    from scitq.util.units import format_bytes

    *sources, target = context.options.paths
    if not sources:
        raise UsageError("file copy needs a source and a target")
    with _bar(is_wanted=not (context.out.is_json or context.out.is_quiet)) as show:
        copied = copy(lambda: Server(context.api()), sources, target, show)
    for text in copied.skipped:
        context.note(text)
    if context.out.is_json:
        context.out.json({"files": copied.files, "bytes": copied.bytes, "skipped": list(copied.skipped)})
    else:
        context.note(f"copied {copied.files} file{'s' if copied.files != 1 else ''}, {format_bytes(copied.bytes)}")
    return EXIT_OK


@contextmanager
def _bar(*, is_wanted: bool) -> Iterator[Callable[[int, int], None]]:
    """Shows bytes done and to do on stderr, if that is a terminal; nothing of it stays."""
    if not is_wanted or not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("copy", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total or None)
