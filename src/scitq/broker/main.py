"""Starting and ending the server."""

from __future__ import annotations

import gc
import logging
import os
import secrets as random
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import zmq

from scitq.broker import dispatch, fleet
from scitq.broker.handlers.session import hash_password
from scitq.broker.loop import Loop
from scitq.broker.state import Broker, Secrets
from scitq.broker.store import users
from scitq.broker.store.connection import Store
from scitq.broker.wire import Wire, raise_file_limit
from scitq.config.schema import Config
from scitq.errors import ScitqError, UsageError
from scitq.util import files, log, paths
from scitq.util.clock import monotonic_s, now_ms

logger = logging.getLogger(__name__)
_OBJECTS_BETWEEN_LOOKS = 100_000
_HASHES = ("$2a$", "$2b$", "$2y$")


@dataclass(frozen=True, slots=True)
class Ready:
    """What is known once the server listens."""

    host: str
    port: int
    public_key: str
    data_folder: Path


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the command line adds to the configuration. `on_ready` is called once, when requests are taken."""

    port: int | None = None
    on_ready: Callable[[Ready], None] | None = None
    first_password: str | None = None
    """For a configuration without admin_hashed_password that the server made itself."""


def data_folder(config: Config) -> Path:
    """Where the server keeps everything."""
    return Path(config.scitq.data_dir).expanduser() if config.scitq.data_dir else paths.data_folder() / "server"


def run(config: Config, options: ServeOptions) -> int:
    """Serve until SIGTERM, SIGINT or `scitq stop`; returns the exit status. Both signals may come twice."""
    log.set_up(config.scitq.log_level)
    raise_file_limit()
    os.umask(0o077)
    folder = data_folder(config)
    files.make_private_folder(folder)
    if not files.is_private(folder):
        logger.warning("the data folder %s can be read by others; chmod 700 it", folder)
    store = Store(folder, on_network=config.scitq.network_filesystem)
    if store.is_exclusive:
        logger.warning("the data folder lies on a network file system: the database is locked for this server alone, and reading is slower")
    secrets = _secrets(config, folder)
    _sync_admin(store, config, options)
    broker = Broker(config, store, secrets, folder, monotonic_s())
    broker.live_tokens = {row.id for row in users.live_tokens(store.writer, now_ms())}
    broker.started_ms = now_ms()
    fleet.open_up(broker)
    dispatch.load()
    wire, port = _listen(config, options, folder, secrets)
    broker.port = port
    loop = Loop(broker, wire)
    _calm_collector()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())
    if options.on_ready is not None:
        options.on_ready(Ready(config.scitq.bind, port, secrets.curve_public.decode(), folder))
    try:
        loop.run()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):  # a second one finds no loop to stop any more
            signal.signal(number, signal.SIG_IGN)
        broker.files.close()
        loop.close()
        store.close()
    return 0


def _calm_collector() -> None:
    """Have the garbage collector look seldom: reading messages makes many objects and hardly a cycle, and each look stops the loop."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_LOOKS, 20, 50)


def _listen(config: Config, options: ServeOptions, folder: Path, secrets: Secrets) -> tuple[Wire, int]:
    wanted = config.scitq.port if options.port is None else options.port
    bind = config.scitq.bind
    memory = folder / "port"
    if wanted:
        return Wire(bind, wanted, secrets.curve_secret, secrets.curve_public), wanted
    candidates = [int(memory.read_text())] if memory.is_file() and memory.read_text().strip().isdigit() else []
    candidates += [_free_port(bind) for _ in range(20)]
    for candidate in candidates:
        try:
            wire = Wire(bind, candidate, secrets.curve_secret, secrets.curve_public)
        except ScitqError:
            continue
        files.write_atomically(memory, str(candidate).encode(), 0o600)
        return wire, candidate
    raise ScitqError(f"found no two free ports next to each other on {bind}")


def _free_port(bind: str) -> int:
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind(("" if bind == "*" else bind, 0))
        port: int = probe.getsockname()[1]
        return min(port, 65534)


def _kept(path: Path, make: Callable[[], bytes]) -> bytes:
    """A secret of this server: read, or made now, 0600."""
    if path.is_file():
        if not files.is_private(path):
            logger.warning("%s can be read by others; chmod 600 it", path)
        return path.read_bytes().strip()
    made = make()
    files.write_atomically(path, made, 0o600)
    return made


def _secrets(config: Config, folder: Path) -> Secrets:
    token_key = config.scitq.token_secret.encode() or _kept(folder / "token.secret", lambda: random.token_hex(32).encode())
    worker_token = config.scitq.worker_token or _kept(folder / "worker.token", lambda: random.token_hex(32).encode()).decode()
    curve = _kept(folder / "server.key", lambda: b"\n".join(reversed(zmq.curve_keypair()))).split()
    if len(curve) != 2:
        raise UsageError(f"{folder / 'server.key'} is damaged; delete it to have a new one made (clients must then forget the old key)")
    if len(token_key) < 16 or len(worker_token) < 16:
        raise UsageError("scitq.token_secret and scitq.worker_token need at least 16 characters")
    return Secrets(token_key, worker_token, curve_secret=curve[0], curve_public=curve[1])


def _sync_admin(store: Store, config: Config, options: ServeOptions) -> None:
    """The administrator of scitq.yaml is the one in the database, with that password (contract AUTH-2)."""
    name, hashed = config.scitq.admin_user, config.scitq.admin_hashed_password
    if not hashed and options.first_password is not None:
        hashed = hash_password(options.first_password)
    if not hashed:
        raise UsageError("scitq.admin_hashed_password is not set; make one with: scitq hashpassword")
    if not hashed.startswith(_HASHES):
        raise UsageError("scitq.admin_hashed_password is no bcrypt hash (a plain password is refused); make one with: scitq hashpassword")
    with store.writer as tx:
        for user in users.listed(tx):
            known = users.by_name(tx, user.name)
            if known and known.is_from_config and known.name != name:
                users.revoke_all(tx, known.id)
                users.set_role(tx, known.id, "user", is_from_config=False)
        known = users.by_name(tx, name)
        if known is None:
            users.insert(tx, name, hashed, "admin", now_ms(), is_from_config=True)
            return
        if known.password_hash != hashed:
            users.set_password(tx, known.id, hashed)
            users.revoke_all(tx, known.id)
        users.set_role(tx, known.id, "admin", is_from_config=True)
