"""`scitq config init`: a commented scitq.yaml with fresh secrets (contract SRV-1)."""

from __future__ import annotations

import argparse
import secrets
from pathlib import Path

from scitq.commands import arguments, terminal
from scitq.commands.context import Context
from scitq.errors import EXIT_OK, ConflictError, ScitqError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where, and what to put in."""
    add = parser.add_argument
    add("--data-dir", metavar="FOLDER", default="", help="where the server keeps its data (default: the user's data folder)")
    add("--port", metavar="N", type=arguments.natural, default=50051, help="the server's port; the next one is used too")
    add("--bind", metavar="ADDRESS", default="127.0.0.1", help="address to listen on; * for all")
    add("--fqdn", metavar="NAME", default="localhost", help="the name by which others reach the server")
    add("--admin-user", metavar="NAME", default="admin", help="the administrator's name")
    add("--admin-password-stdin", action="store_true", help="read the administrator's password from stdin instead of making one up")
    add("--force", action="store_true", help="replace a file that is there")


def run(context: Context) -> int:
    """Write the file; a made-up password is printed, once, on stdout."""
    from scitq.config import load, passwords, sample
    from scitq.util import files

    options = context.options
    given = terminal.password_from(is_stdin=options.admin_password_stdin, file=None)
    password = given or secrets.token_urlsafe(15)
    path = Path(options.config).absolute() if options.config else load.user_file()
    if path.exists() and not options.force:
        raise ConflictError(f"{path} is there already; --force replaces it, with new secrets")
    text = sample.render(
        hashed_password=passwords.hash_password(password),
        fqdn=options.fqdn,
        port=options.port,
        bind=options.bind,
        data_dir=str(Path(options.data_dir).absolute()) if options.data_dir else "",
        admin=options.admin_user,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.write_atomically(path, text.encode(), 0o600)
    except OSError as error:
        raise ScitqError(f"{path} can't be written: {error.strerror}") from None
    load.read(path)
    context.note(f"wrote {path}")
    if context.out.is_json:
        context.out.json({"config": str(path), "admin_user": options.admin_user, "admin_password": None if given else password})
    elif given is None:
        context.note(f"the password of {options.admin_user}, shown this once:")
        context.out.text(password)
    return EXIT_OK
