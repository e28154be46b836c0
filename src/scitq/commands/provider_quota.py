"""`scitq provider quota`: show limits, or set one."""

from __future__ import annotations

import argparse

from scitq.commands.context import Context
from scitq.commands.render import Column
from scitq.errors import EXIT_OK, UsageError
from scitq.util.units import figure

COLUMNS = (
    Column("provider", lambda row: row.provider),
    Column("region", lambda row: row.region),
    Column("kind", lambda row: row.kind),
    Column("most", lambda row: figure(row.most), is_number=True),
    Column("used", lambda row: figure(row.used), is_number=True),
)


def _most(text: str) -> float | None:
    if text == "none":
        return None
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e12:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number, 0 or more, or none")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Without --most the limits are shown."""
    parser.add_argument("--provider", metavar="NAME", help="provider and configuration, as slurm.main")
    parser.add_argument("--region", metavar="NAME", default="", help="only there (default: all regions together)")
    parser.add_argument("--kind", choices=("workers", "cpu", "cost"), default="workers", help="what is limited; cost is an hour's")
    parser.add_argument(
        "--most",
        metavar="N",
        type=_most,
        default=...,
        help="set the limit; none takes away what was set so, and one in scitq.yaml holds again (default: show the limits)",
    )


def run(context: Context) -> int:
    """Show or set."""
    from scitq.protocol.messages.fleet import ProviderQuota, ProviderQuotas, QuotaRows
    from scitq.protocol.registry import Done

    options = context.options
    if options.most is not ...:
        if not options.provider:
            raise UsageError("name the provider whose limit is set: --provider NAME")
        context.api().call(ProviderQuota(provider=options.provider, region=options.region, kind=options.kind, most=options.most), Done)
    rows = context.api().call(ProviderQuotas(provider=options.provider), QuotaRows).rows
    if options.most is not ...:
        rows = [row for row in rows if (row.region, row.kind) == (options.region, options.kind)]
        if options.most is None and rows:
            context.note(f"scitq.yaml limits it to {rows[0].most:g}")
        if not context.out.is_json:
            return EXIT_OK
    context.out.rows(rows, COLUMNS, key="provider")
    return EXIT_OK
