"""`scitq hashpassword`: what goes into scitq.yaml."""

from __future__ import annotations

import argparse

from scitq.commands import terminal
from scitq.commands.context import Context
from scitq.errors import EXIT_OK

EPILOG = "The hash goes to stdout; put it into scitq.yaml as admin_hashed_password, in single quotes."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the password comes from."""
    parser.add_argument("--password-stdin", action="store_true", help="read the password from stdin")
    parser.add_argument("--password-file", metavar="FILE", help="read the password from a file (default: asked twice on the terminal)")


def run(context: Context) -> int:
    """Print the hash, alone. Needs no server."""
    from scitq.config import passwords

    password = terminal.new_password(is_stdin=context.options.password_stdin, file=context.options.password_file)
    hashed = passwords.hash_password(password)
    if context.out.is_json:
        context.out.json({"hash": hashed})
    else:
        context.out.text(hashed)
    return EXIT_OK
