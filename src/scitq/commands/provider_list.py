"""`scitq provider list`."""

from __future__ import annotations

import argparse

from scitq.commands.context import Context
from scitq.commands.render import Column, local_time
from scitq.errors import EXIT_OK

COLUMNS = (
    Column("name", lambda row: row.name),
    Column("region", lambda row: row.region),
    Column("flavors", lambda row: str(row.flavors), is_number=True),
    Column("workers", lambda row: str(row.workers), is_number=True),
    Column("updated", lambda row: local_time(row.updated_ms)),
    Column("error", lambda row: row.error),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Nothing to choose."""


def run(context: Context) -> int:
    """By name."""
    from scitq.protocol.messages.fleet import ProviderList, ProviderRows

    context.out.rows(context.api().call(ProviderList(), ProviderRows).rows, COLUMNS, key="name")
    return EXIT_OK
