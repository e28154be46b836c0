"""`scitq user token create`: tokens for cron and for workers."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.errors import EXIT_OK, UsageError

EPILOG = """example, for cron:
  (umask 077; scitq user token create --ttl 365d --name backup > ~/.scitq-token)
  0 3 * * *  scitq --token-file ~/.scitq-token task create --from-file nightly.jsonl --wait"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """For whom, how long, under which name."""
    add = parser.add_argument
    add("--name", metavar="TEXT", default="", help="what the token is for")
    add("--ttl", metavar="TIME", type=arguments.duration, help="how long it lives, as 365d (default: the server's token_ttl)")
    add("--user", metavar="NAME", help="for this user, for administrators (default: oneself)")
    add("--worker", action="store_true", help="a worker's token, for administrators: it can do only what workers do")


def run(context: Context) -> int:
    """Print the token, alone."""
    from scitq.protocol.messages.session import TokenCreate, TokenGiven

    options = context.options
    if options.worker and options.user:
        raise UsageError("--worker and --user exclude each other: a worker's token is nobody's")
    asked = TokenCreate(name=options.name, ttl_s=options.ttl, user=options.user, is_worker=options.worker)
    given = context.api().call(asked, TokenGiven)
    if context.out.is_json:
        context.out.json(given)
    else:
        context.out.text(given.token)
    return EXIT_OK
