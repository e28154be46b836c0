"""`scitq flavor list` (contract, section 13)."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.commands.render import Column
from scitq.errors import EXIT_OK
from scitq.model import flavor_filter

EPILOG = """Filters are conditions joined by `:`, all of which must hold: cpu>=8:mem>10:provider~%azure%. Numbers (> >= < <= =): cpu, mem (GiB),
disk (GB), gpus, gpumem (GiB), eviction (percent), cost (an hour). Texts (~, with % for anything): provider, region, gpu, flavor.
Unless the filter speaks of eviction, eviction<=5 is added."""

COLUMNS = (
    Column("provider", lambda row: row.provider),
    Column("region", lambda row: row.region),
    Column("name", lambda row: row.name),
    Column("cpu", lambda row: f"{row.cpu:g}", is_number=True),
    Column("mem", lambda row: f"{row.mem:g}", is_number=True),
    Column("disk", lambda row: f"{row.disk:g}", is_number=True),
    Column("gpu", lambda row: f"{row.gpus} × {row.gpu}" if row.gpus > 1 else row.gpu),
    Column("gpumem", lambda row: f"{row.gpumem:g}" if row.gpumem else "", is_number=True),
    Column("eviction", lambda row: f"{row.eviction:g}", is_number=True),
    Column("cost", lambda row: "" if row.cost is None else f"{row.cost:g}", is_number=True),
    Column("note", lambda row: "disabled" if row.is_disabled else f"set aside: {row.aside_reason}" if row.aside_until_ms else ""),
)


def filter_text(text: str) -> str:
    """A filter, checked before anything is sent."""
    flavor_filter.parse(text)
    return text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many, and which."""
    parser.add_argument("--limit", metavar="N", type=arguments.natural, default=10, help="show at most N flavors; 0 means all")
    parser.add_argument(
        "--filter", metavar="FILTER", type=arguments.checked(filter_text), default="", help="only flavors that pass, as cpu>=8:mem>10"
    )


def run(context: Context) -> int:
    """The cheapest first."""
    from scitq.protocol.messages.fleet import FlavorList, FlavorRows

    found = context.api().call(FlavorList(limit=context.options.limit, filter=context.options.filter), FlavorRows)
    context.out.rows(found.rows, COLUMNS, key="name")
    if not found.total:
        context.note(
            "the catalogue is empty: no provider has told its flavors yet; see `scitq provider list`, and the section `providers` of the "
            "server's scitq.yaml"
        )
    elif not found.rows:
        context.note(f"no flavor of {found.total} passes the filter")
    return EXIT_OK
