"""`scitq user create`."""

from __future__ import annotations

import argparse

from scitq.commands import terminal
from scitq.commands.context import Context
from scitq.errors import EXIT_OK


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Who, and the password."""
    parser.add_argument("--user", "--name", dest="user", metavar="NAME", required=True, help="the new user's name")
    parser.add_argument("--admin", action="store_true", help="make an administrator")
    parser.add_argument("--password-stdin", action="store_true", help="read the password from stdin")
    parser.add_argument("--password-file", metavar="FILE", help="read the password from a file (default: asked twice on the terminal)")


def run(context: Context) -> int:
    """Print the new user's id."""
    from scitq.protocol.messages.session import UserCreate, UserRow

    options = context.options
    api = context.api()
    password = terminal.new_password(is_stdin=options.password_stdin, file=options.password_file)
    row = api.call(UserCreate(name=options.user, password=password, is_admin=options.admin), UserRow)
    if context.out.is_json:
        context.out.json(row)
    else:
        context.out.ids([row.id])
    return EXIT_OK
