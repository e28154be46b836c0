"""`scitq file delete`: remove files from a storage."""

from __future__ import annotations

import argparse

from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to remove."""
    parser.add_argument("uris", metavar="URI", nargs="+", help="a file, a pattern with *, or with --recursive a folder")
    parser.add_argument("--recursive", action="store_true", help="delete folders with all that is in them")


def run(context: Context) -> int:
    """Delete, and say how many there were."""
    from scitq.protocol.messages.file import FileDelete, FilesDeleted

    count = 0
    for uri in context.options.uris:
        count += context.api().call(FileDelete(uri=uri, is_recursive=context.options.recursive), FilesDeleted).count
    if context.out.is_json:
        context.out.json({"deleted": count})
    else:
        context.note(f"deleted {count} file{'s' if count != 1 else ''}")
    return EXIT_OK
