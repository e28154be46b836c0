"""`scitq agent`: run a worker on this machine (contract SRV-1)."""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path
from typing import Any

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.errors import NotLoggedInError, UsageError
from scitq.util import paths

EPILOG = """The worker's token comes from --token-file, $SCITQ_WORKER_TOKEN, the scitq.yaml that the server here uses, or this user's own
running server. On other machines: `scitq user token create --worker > FILE` once, then `scitq agent --server H:P --token-file FILE`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the worker offers, and where it keeps things."""
    add = parser.add_argument
    add("--concurrency", metavar="N", type=arguments.positive, help="tasks at once (default: 1, or what the server has for this worker)")
    add("--prefetch", metavar="N", type=arguments.natural, help="tasks prepared ahead (default: 0, or what the server has for this worker)")
    add("--work-dir", metavar="FOLDER", help="where tasks and shared resources lie (default: agent in the user's data folder)")
    add("--runtime", choices=("auto", "docker", "podman", "apptainer", "bare"), default="auto", help="what runs containers")
    add("--no-bare", action="store_true", help="take no tasks without a container")
    add("--name", metavar="TEXT", default="", help="the worker's name (default: the host's)")
    add("--step", "--step-id", dest="step", metavar="STEP", default="", help="the step to serve, by id or name")
    add("--idle-timeout", metavar="TIME", type=arguments.duration, help="end after so long without a task (default: never)")
    add("--time-left", metavar="TIME", type=arguments.duration, help="the allocation ends in so long (default: it does not)")
    add("--machine", metavar="NAME", default="", help="the name that the server gave the machine, when it had it made")
    add("--provider", metavar="NAME", default="", help="shown with the worker")
    add("--region", metavar="NAME", default="", help="shown with the worker")
    add("--flavor", metavar="NAME", default="", help="shown with the worker")
    add("--clear", action="store_true", help="remove the containers that an agent killed in this --work-dir has left, and end")
    add("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO", help="what to log, on stderr")


def _read_token(file: Path) -> str:
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the token file {file} can't be read: {getattr(error, 'strerror', None) or error}") from None
    if not token:
        raise NotLoggedInError(f"the token file {file} is empty")
    return token


def _find_token(context: Context, config_file: Path | None) -> str:
    if context.options.token_file:
        context.warn_of_open(context.options.token_file)
        return _read_token(Path(context.options.token_file))
    named = os.environ.get("SCITQ_WORKER_TOKEN", "").strip()
    if named:
        return named
    if config_file is not None:
        from scitq.broker.main import data_folder
        from scitq.config import load

        config = load.read(config_file)
        if config.scitq.worker_token:
            return config.scitq.worker_token
        kept = data_folder(config) / "worker.token"
        if kept.is_file():
            return _read_token(kept)
    raise NotLoggedInError(
        "a worker needs a token, and there is no scitq.yaml with one here. As an administrator: "
        "scitq user token create --worker > FILE; then: scitq agent --token-file FILE"
    )


def run(context: Context) -> int:
    """Until it is told to end."""
    from scitq.client import link, locate
    from scitq.config import load

    options = context.options
    work_dir = (Path(options.work_dir) if options.work_dir else paths.data_folder() / "agent").absolute()
    if options.clear:
        clearing: Any = importlib.import_module("scitq.agent.clearing")
        cleared: int = clearing.run(work_dir, options.runtime, options.log_level)
        return cleared
    config_file = load.find(options.config)
    own = locate.running_servers()
    if config_file is None and own and own[0].config:
        config_file = Path(own[0].config)
    if config_file is None and load.default_file().is_file():
        config_file = load.default_file()
    configured = None
    if config_file is not None and not own:
        server = load.read(config_file).scitq
        configured = locate.Address(server.server_fqdn, server.port) if server.port else None
    token = _find_token(context, config_file)
    address = locate.find_server(options.server, configured)
    key = link.server_key(address)
    from scitq.agent.options import AgentOptions

    agent: Any = importlib.import_module("scitq.agent.main")

    status: int = agent.run(
        AgentOptions(
            server=str(address),
            server_key=key,
            token=token,
            work_dir=work_dir,
            concurrency=options.concurrency,
            prefetch=options.prefetch,
            allows_bare=not options.no_bare,
            runtime=options.runtime,
            name=options.name,
            step=options.step,
            machine=options.machine,
            provider=options.provider,
            region=options.region,
            flavor=options.flavor,
            idle_timeout_s=options.idle_timeout,
            seconds_left=options.time_left,
            log_level=options.log_level,
        )
    )
    return status
