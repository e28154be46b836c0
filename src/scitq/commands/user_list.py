"""`scitq user list`."""

from __future__ import annotations

import argparse

from scitq.commands.context import Context
from scitq.commands.render import Column, local_time
from scitq.errors import EXIT_OK

COLUMNS = (
    Column("id", lambda row: str(row.id), is_number=True),
    Column("name", lambda row: row.name),
    Column("role", lambda row: row.role),
    Column("created", lambda row: local_time(row.created_ms)),
)


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """None but those of every command."""


def run(context: Context) -> int:
    """By name."""
    from scitq.protocol.messages.session import UserList, UserRows

    context.out.rows(context.api().call(UserList(), UserRows).rows, COLUMNS)
    return EXIT_OK
