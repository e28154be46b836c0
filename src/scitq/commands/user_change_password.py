"""`scitq user change-password`."""

from __future__ import annotations

import argparse

from scitq.commands import terminal
from scitq.commands.context import Context
from scitq.errors import EXIT_OK, UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose, and where the passwords come from."""
    add = parser.add_argument
    add("--user", "--name", dest="user", metavar="NAME", help="whose password, for administrators (default: one's own)")
    add("--password-stdin", action="store_true", help="read the new password from stdin")
    add("--password-file", metavar="FILE", help="read the new password from a file (default: asked twice on the terminal)")
    add(
        "--old-password-file",
        metavar="FILE",
        help="read the old password from a file (default: asked on the terminal; administrators need none for others)",
    )


def run(context: Context) -> int:
    """The administrator of scitq.yaml has the password that stands there, again, after the next start of the server."""
    from scitq.protocol.messages.session import Ping, Pong, UserUpdate
    from scitq.protocol.registry import Done

    options = context.options
    api = context.api()
    me = api.call(Ping(), Pong)
    user = options.user or me.user
    old = terminal.password_from(is_stdin=False, file=options.old_password_file)
    if old is None and user == me.user:
        if not terminal.has_terminal():
            raise UsageError("there is no terminal to ask for the old password on; give --old-password-file FILE")
        old = terminal.ask("Old password: ", is_secret=True)
    password = terminal.new_password(is_stdin=options.password_stdin, file=options.password_file)
    api.call(UserUpdate(name=user, password=password, old_password=old), Done)
    context.done(f"the password of {user} is changed", name=user)
    return EXIT_OK
