"""`scitq version`: which scitq this is."""

from __future__ import annotations

import argparse

from scitq import __version__
from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How much to tell."""
    parser.add_argument("--verbose", action="store_true", help="show the commit and the libraries too")


def run(context: Context) -> int:
    """Needs no server."""
    out = context.out
    facts = {"version": __version__}
    if context.options.verbose or out.is_json:
        from scitq.util.build_info import build_info

        built = build_info()
        facts |= {"commit": built.commit, "python": built.python, "one_file": "yes" if built.one_file else "no", **built.libraries}
    if out.is_json:
        out.json(facts)
    elif context.options.verbose:
        out.fields(facts.items())
    else:
        out.text(f"scitq {__version__}")
    return EXIT_OK
