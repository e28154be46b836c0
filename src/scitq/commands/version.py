"""`scitq version`: which scitq this is."""

from __future__ import annotations

import argparse
import importlib
import platform
import sys

from scitq import __version__
from scitq.commands.context import Context
from scitq.errors import EXIT_OK

_LIBRARIES = (
    "apsw",
    "bcrypt",
    "boto3",
    "cryptography",
    "docker",
    "isal",
    "msgpack",
    "msgspec",
    "obstore",
    "psutil",
    "pyyaml",
    "pyzmq",
    "rich",
    "zstandard",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How much to tell."""
    parser.add_argument("--verbose", action="store_true", help="show the commit and the libraries too")


def _commit() -> str:
    """The commit that the executable was made from; it is written into the package when that is built."""
    try:
        return str(importlib.import_module("scitq._build").COMMIT)
    except ImportError:
        return ""


def _libraries() -> dict[str, str]:
    from importlib import metadata

    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def run(context: Context) -> int:
    """Needs no server."""
    out = context.out
    facts = {"version": __version__}
    if context.options.verbose or out.is_json:
        facts |= {"commit": _commit(), "python": platform.python_version(), "frozen": "yes" if getattr(sys, "frozen", False) else "no"}
        facts |= _libraries()
    if out.is_json:
        out.json(facts)
    elif context.options.verbose:
        out.fields(facts.items())
    else:
        out.text(f"scitq {__version__}")
    return EXIT_OK
