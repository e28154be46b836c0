"""`scitq user token list`."""

from __future__ import annotations

import argparse

from scitq.commands.context import Context
from scitq.commands.render import Column, local_time
from scitq.errors import EXIT_OK

COLUMNS = (
    Column("id", lambda row: row.id),
    Column("user", lambda row: row.user),
    Column("role", lambda row: row.role),
    Column("name", lambda row: row.name),
    Column("created", lambda row: local_time(row.created_ms)),
    Column("expires", lambda row: local_time(row.expires_ms) or "never"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose."""
    parser.add_argument("--all", action="store_true", help="of all users, for administrators")


def run(context: Context) -> int:
    """Newest first."""
    from scitq.protocol.messages.session import TokenList, TokenRows

    context.out.rows(context.api().call(TokenList(is_all=context.options.all), TokenRows).rows, COLUMNS)
    return EXIT_OK
