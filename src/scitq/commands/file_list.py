"""`scitq file list`: what lies on a storage."""

from __future__ import annotations

import argparse

from scitq.commands.context import Context
from scitq.commands.render import Column, local_time
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where, and how deep."""
    parser.add_argument("uri", metavar="URI", help="a file, a folder, a pattern with *, or storage:// for the storage's buckets")
    parser.add_argument("--recursive", action="store_true", help="all files below, not only the next level")


def run(context: Context) -> int:
    """One line for each file or folder: size, date, path; with --quiet the URIs alone."""
    from scitq.protocol.messages.file import FileList, FileRow, FileRows

    found = context.api().call(FileList(uri=context.options.uri, is_recursive=context.options.recursive), FileRows)
    columns = (
        Column("size", lambda row: "" if row.uri.endswith("/") or row.size < 0 else str(row.size), is_number=True),
        Column("modified", lambda row: local_time(row.modified_ms)),
        Column("path", lambda row: row.path),
    )
    rows: list[FileRow] = found.rows
    context.out.rows(rows, columns, key="uri")
    if found.is_cut:
        context.note(f"there is more; only {len(rows)} are shown: list the folders below one after the other")
    return EXIT_OK
