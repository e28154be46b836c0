"""`scitq serve`: run the server (contract SRV-1)."""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.errors import EXIT_OK, ScitqError, UsageError
from scitq.util import bundle, clock, files, proc

if TYPE_CHECKING:
    import subprocess

    from scitq.broker.main import Ready
    from scitq.client import locate

EPILOG = """Without --config the first of $SCITQ_CONFIG, ~/.config/scitq/scitq.yaml, /etc/scitq.yaml and /etc/scitq/scitq.yaml is read.
When there is none, a private default is made in the user's data folder; stderr tells where the administrator's password lies.
The server ends at SIGTERM, Ctrl-C or `scitq stop`; tasks that run go on, and their results are taken at the next start."""
START_TIMEOUT_S = 60.0
READY = "scitq server ready on "


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The port, and whether to stay."""
    port_help = "the port, and the next one too; 0: any two free ones, kept for later starts (default: scitq.port of the configuration)"
    parser.add_argument("--port", metavar="N", type=arguments.port, help=port_help)
    parser.add_argument(
        "--detach", action="store_true", help="go to the background once it is ready; the log goes to server.log in the data folder"
    )


def password_file(config_file: Path) -> Path:
    """Where the administrator's password of a private default lies."""
    return config_file.with_name("admin-password")


def _make_default(file: Path) -> None:
    from scitq.config import passwords, sample

    password = secrets.token_urlsafe(15)
    try:
        files.make_private_folder(file.parent)
        files.write_atomically(password_file(file), f"{password}\n".encode(), 0o600)
        store = file.parent / "store"
        files.make_private_folder(store)
        text = sample.render(hashed_password=passwords.hash_password(password), data_dir=str(file.parent / "server"), store=str(store))
        files.write_atomically(file, text.encode(), 0o600)
    except OSError as error:
        raise ScitqError(f"can't write a default configuration to {file}: {error.strerror}; name one with --config") from None


def find_config(context: Context) -> Path:
    """The configuration to use; a private default is made when there is none."""
    from scitq.config import load

    found = load.find(context.options.config)
    if found is not None:
        if load.is_too_open(found):
            context.note(f"warning: {found} holds secrets and can be read by others; chmod 600 it")
        return found
    file = load.default_file()
    if not file.is_file():
        _make_default(file)
        context.note(f"no configuration was found; made a private one: {file}")
    context.note(f"configuration {file}; the password of its administrator `admin` is in {password_file(file)}")
    return file


def _reachable(bind: str) -> str:
    return "localhost" if bind in {"*", "0.0.0.0", "::", "[::]"} else bind  # noqa: S104 - only compared


def _announce(ready: Ready, config_file: Path) -> Path | None:
    """Leave word in the runtime folder, so that clients and agents of this user find the server; None when there is no place."""
    import msgspec

    from scitq.client import locate

    folder = locate.servers_folder()
    pid = os.getpid()
    word = locate.RunningServer(
        host=_reachable(ready.host),
        port=ready.port,
        key=ready.public_key,
        pid=pid,
        started=locate.process_started(pid) or 0,
        data_dir=str(ready.data_folder),
        config=str(config_file.absolute()),
        since_ms=clock.now_ms(),
    )
    try:
        for place in (folder.parent, folder):
            files.make_private_folder(place)
            if place.stat().st_uid != os.getuid() or not files.is_private(place):
                return None
        file = folder / f"{ready.port}.json"
        files.write_atomically(file, msgspec.json.encode(word), 0o600)
    except OSError:
        return None
    return file


def _detach(context: Context, config_file: Path) -> int:
    from scitq.broker.main import data_folder
    from scitq.client import locate
    from scitq.config import load

    folder = data_folder(load.read(config_file))
    files.make_private_folder(folder)
    log = folder / "server.log"
    words = [*proc.own_command(), "serve", "--config", str(config_file.absolute())]
    if context.options.port is not None:
        words += ["--port", str(context.options.port)]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        start = os.fstat(descriptor).st_size
        child = proc.start(words, start_new_session=True, stdout=descriptor, stderr=descriptor, cwd="/")
    finally:
        os.close(descriptor)
    try:
        ready, address = _await_ready(child, log, start)
    except BaseException:
        if child.poll() is None:
            child.terminate()
        raise
    context.note(f"server ready on {address}, process {child.pid}, data in {folder}, log in {log}; `scitq stop` ends it")
    if ready is None:
        context.note(f"warning: no word of it could be left in {locate.servers_folder()}; commands need --server {address}")
    if context.out.is_json:
        context.out.json(ready or {"host": address.host, "port": address.port, "pid": child.pid})
    else:
        context.out.text(str(child.pid))
    return EXIT_OK


def _await_ready(child: subprocess.Popen[bytes], log: Path, start: int) -> tuple[locate.RunningServer | None, locate.Address]:
    """What the server says of itself in the runtime folder, or None where it could not, and its address."""
    from scitq.client import locate

    deadline = clock.monotonic_s() + START_TIMEOUT_S
    while clock.monotonic_s() < deadline:
        status = child.poll()
        said = log.read_bytes()[start:].decode("utf-8", "replace").strip()
        if status is not None:
            raise ScitqError(f"the server did not start (exit {status}); {log} says:\n{said[-3000:]}")
        if line := next((line for line in said.splitlines() if line.startswith(READY)), ""):
            address = locate.parse_address(line.removeprefix(READY).partition(",")[0])
            return next((server for server in locate.running_servers() if server.pid == child.pid), None), address
        clock.sleep_s(0.05)
    raise ScitqError(f"the server was not ready within {START_TIMEOUT_S:g} s; {log} says why")


def run(context: Context) -> int:
    """Until it is told to end."""
    from scitq.config import load

    if context.options.server is not None:
        raise UsageError("--server is for clients; a server is told its port with --port, and its address with scitq.bind in scitq.yaml")
    config_file = find_config(context)
    config = load.read(config_file)
    if context.options.detach:
        return _detach(context, config_file)
    from scitq.broker import main as broker
    from scitq.client.locate import Address

    announced: list[Path] = []

    def on_ready(ready: broker.Ready) -> None:
        file = _announce(ready, config_file)
        if file is not None:
            announced.append(file)
        bundle.keep_fresh("scitq.broker", "scitq.storage", "scitq.protocol")
        print(f"{READY}{Address(ready.host, ready.port)}, data in {ready.data_folder}", file=sys.stderr, flush=True)

    try:
        return broker.run(config, broker.ServeOptions(port=context.options.port, on_ready=on_ready))
    finally:
        for file in announced:
            file.unlink(missing_ok=True)
