"""`scitq login`: a name and a password for a token (contract AUTH-4 to AUTH-8)."""

from __future__ import annotations

import argparse
import sys

from scitq.commands import arguments, terminal
from scitq.commands.context import Context
from scitq.errors import EXIT_OK, NotLoggedInError, ScitqError, UsageError, from_code

EPILOG = """examples:
  SCITQ_TOKEN=$(scitq login)                  asks on the terminal; good for this terminal session
  export SCITQ_TOKEN=$(scitq login)           for the scripts that this shell starts too
  scitq login --user cron --password-file ~/.scitq-password --ttl 1h --no-session
For cron, better keep a token in a file: scitq user token create, and then --token-file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Who, and where the password comes from."""
    parser.add_argument("--user", metavar="NAME", help="the user (default: asked on the terminal)")
    parser.add_argument("--password-stdin", action="store_true", help="read the password from stdin")
    parser.add_argument("--password-file", metavar="FILE", help="read the password from a file (default: asked on the terminal)")
    parser.add_argument(
        "--ttl", metavar="TIME", type=arguments.duration, help="how long the token lives, as 8h or 30d (default: the server's token_ttl)"
    )
    parser.add_argument("--no-session", action="store_true", help="leave no session file, so that only $SCITQ_TOKEN counts")


def _credentials(options: argparse.Namespace) -> tuple[str, str]:
    password = terminal.password_from(is_stdin=options.password_stdin, file=options.password_file)
    if (options.user is None or password is None) and not terminal.has_terminal():
        raise UsageError("login failed: there is no terminal to ask on; give --user, and --password-stdin or --password-file FILE")
    user = options.user if options.user is not None else terminal.ask("User: ").strip()
    if not user:
        raise UsageError("login failed: no user was given")
    if password is None:
        password = terminal.ask("Password: ", is_secret=True)
    return user, password


def run(context: Context) -> int:
    """Print the token, alone."""
    from scitq.client import sessions
    from scitq.protocol.messages.session import Login, TokenGiven

    options = context.options
    try:
        if not (options.password_stdin or options.password_file or options.user) and not terminal.has_terminal():
            _credentials(options)
        api = context.api(needs_token=False)
        user, password = _credentials(options)
        given = api.call(Login(user=user, password=password, ttl_s=options.ttl), TokenGiven)
    except ScitqError as error:
        if error.message.startswith("login failed"):
            raise
        kind = "Unauthenticated: " if isinstance(error, NotLoggedInError) else ""  # the word of the guide, as `Unavailable` is
        raise from_code(error.code, f"login failed: {kind}{error.message}") from None
    if not options.no_session and sessions.write(api.address, given.token) and not context.out.is_quiet and sys.stderr.isatty():
        context.note(f"logged in as {given.user} for this terminal session; for scripts: export SCITQ_TOKEN")
    if context.out.is_json:
        context.out.json(given)
    else:
        context.out.text(given.token)
    return EXIT_OK
