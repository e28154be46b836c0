"""`scitq ping`: is the server there, and who am I to it (contract AUTH-15)."""

from __future__ import annotations

import argparse

import msgspec

from scitq.commands.context import Context
from scitq.errors import EXIT_OK, NotLoggedInError
from scitq.util import clock, units


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """None but those of every command."""


class Pinged(msgspec.Struct, frozen=True, kw_only=True):
    """The answer and what was seen on the way to it."""

    server: str
    address: str
    version: str
    user: str
    role: str
    round_trip_ms: float
    key: str
    fingerprint: str


def run(context: Context) -> int:
    """Works without a token; a token that is shown and refused is an error."""
    from scitq.client import api as client
    from scitq.client import locate, pins
    from scitq.protocol.messages.session import Ping, Pong

    address = locate.find_server(context.options.server)
    try:
        token = client.find_token(address, context.options.token_file)
    except NotLoggedInError:
        if context.options.token_file:
            raise
        token = ""
    with client.Api(address, token) as api:
        api.call(Ping(), Pong)
        began = clock.monotonic_s()
        answer = api.call(Ping(), Pong)
        took_s = clock.monotonic_s() - began
        pinged = Pinged(
            server=str(address),
            address=str(locate.Address(api.link.host, address.port)),
            version=answer.version,
            user=answer.user,
            role=answer.role,
            round_trip_ms=round(took_s * 1000, 3),
            key=api.link.key,
            fingerprint=pins.fingerprint(api.link.key),
        )
    out = context.out
    if out.is_json:
        out.json(pinged)
    elif not out.is_quiet:
        who = f"{pinged.user} ({pinged.role})" if pinged.user else "not logged in"
        out.fields(
            [
                ("server", f"{pinged.server} ({pinged.address})"),
                ("version", pinged.version),
                ("round trip", units.format_duration(took_s) if took_s >= 0.01 else f"{pinged.round_trip_ms:.2f} ms"),
                ("user", who),
                ("key", pinged.key),
                ("fingerprint", pinged.fingerprint),
            ]
        )
    return EXIT_OK
