"""`scitq db backup`: a copy of the database while it is in use."""

from __future__ import annotations

import argparse

from scitq.commands.context import Context
from scitq.errors import EXIT_OK
from scitq.util.units import format_bytes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to."""
    parser.add_argument("--to", metavar="FILE", default="", help="file on the server's disk (default: a dated one in its data folder)")


def run(context: Context) -> int:
    """Print where the copy lies."""
    from scitq.protocol.messages.server import BackupMade, ServerBackup

    made = context.api().call(ServerBackup(path=context.options.to), BackupMade, waits_s=3600)
    if context.out.is_json:
        context.out.json(made)
    else:
        context.out.text(made.path)
        context.note(f"{format_bytes(made.size_bytes)}, on the server's disk")
    return EXIT_OK
