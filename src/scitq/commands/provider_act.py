"""`scitq provider check | update`."""

from __future__ import annotations

import argparse

from scitq.commands.context import Context
from scitq.errors import EXIT_OK

_PATIENCE_S = 120.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which provider."""
    parser.add_argument(
        "--provider", "--name", dest="name", metavar="NAME", required=True, help="provider and configuration, as slurm.main"
    )


def run(context: Context) -> int:
    """What the provider says of itself, or how many flavors it has now."""
    from scitq.protocol.messages.fleet import ProviderCheck, ProviderChecked, ProviderUpdate, ProviderUpdated

    name = context.options.name
    if context.command.path[1] == "check":
        checked = context.api().call(ProviderCheck(name=name), ProviderChecked, waits_s=_PATIENCE_S)
        if context.out.is_json:
            context.out.json(checked)
        elif not context.out.is_quiet:
            context.out.text(checked.words)
        return EXIT_OK
    updated = context.api().call(ProviderUpdate(name=name), ProviderUpdated, waits_s=_PATIENCE_S)
    if context.out.is_json:
        context.out.json(updated)
    elif not context.out.is_quiet:
        context.out.text(f"{updated.flavors} flavors")
    return EXIT_OK
