"""`scitq provider flavor-disable | flavor-enable`."""

from __future__ import annotations

import argparse

from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which flavor."""
    parser.add_argument("--provider", metavar="NAME", required=True, help="provider and configuration, as slurm.main")
    parser.add_argument("--flavor", metavar="NAME", required=True, help="the flavor")
    parser.add_argument("--region", metavar="NAME", default="", help="only in this region (default: in all)")


def run(context: Context) -> int:
    """At once, for recruiters and deployments."""
    from scitq.protocol.messages.fleet import ProviderFlavor
    from scitq.protocol.registry import Done

    options = context.options
    is_disabled = context.command.path[1] == "flavor-disable"
    asked = ProviderFlavor(provider=options.provider, flavor=options.flavor, region=options.region, is_disabled=is_disabled)
    context.api().call(asked, Done)
    if context.out.is_json:
        context.out.json({"provider": options.provider, "flavor": options.flavor, "is_disabled": is_disabled})
    return EXIT_OK
