"""`scitq stop`: end the server."""

from __future__ import annotations

import argparse

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.errors import EXIT_OK, TimedOutError, UnavailableError
from scitq.util import clock


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whether to let the workers finish."""
    parser.add_argument("--drain", action="store_true", help="give no new tasks, and end when none is on a worker any more")
    parser.add_argument(
        "--timeout",
        metavar="TIME",
        type=arguments.duration,
        default=30.0,
        help="without --drain: wait so long for its end, in seconds or as 2m",
    )


def run(context: Context) -> int:
    """Waits for the end of a server of this user on this host; of another one, for its word alone."""
    from scitq.client import locate
    from scitq.protocol.messages.server import ServerState, ServerStatus, ServerStop
    from scitq.protocol.registry import Done

    own = locate.own_server(locate.find_server(context.options.server))
    try:
        api = context.api()
        state = api.call(ServerStatus(), ServerState)
    except UnavailableError as error:
        if own is None:
            raise
        advice = f"It is process {own.pid} here: `kill -9 {own.pid}` ends it; what it has confirmed is on disk, and tasks go on"
        raise UnavailableError(f"{error.message} {advice}") from None
    if own is not None and own.pid != state.pid:
        own = None
    api.call(ServerStop(is_draining=context.options.drain), Done)
    context.close()
    if context.options.drain:
        context.done("the server gives no new tasks, and ends when the last one has left its worker", has_ended=False)
        return EXIT_OK
    deadline = clock.monotonic_s() + context.options.timeout
    while own and locate.process_started(own.pid) == own.started:
        if clock.monotonic_s() > deadline:
            raise TimedOutError(f"the server (process {own.pid}) is still ending after {context.options.timeout:g} s")
        clock.sleep_s(0.05)
    context.done("the server has ended" if own else "the server ends", has_ended=bool(own))
    return EXIT_OK
