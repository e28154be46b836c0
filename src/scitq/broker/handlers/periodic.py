"""What the broker does by itself, by the clock."""

from __future__ import annotations

from scitq.broker import departures
from scitq.broker.context import Ctx
from scitq.broker.dispatch import every
from scitq.broker.store import requests, users, workers
from scitq.util.clock import monotonic_s

_DAY_MS = 86_400_000
CONNECTED_S = 60.0


@every(1.0)
def watch(ctx: Ctx) -> None:
    """Silent workers; workers that declined and may be asked again."""
    now_s = monotonic_s()
    departures.watch(ctx, now_s)
    for live in ctx.broker.fleet.workers.values():
        if live.not_before_s and live.not_before_s <= now_s:
            live.not_before_s = 0.0
            ctx.broker.fleet.touch(live)


@every(10.0)
def forget(ctx: Ctx) -> None:
    """Peers that have not been heard for a minute: each command of a user is one, and agents speak more often."""
    since_s = monotonic_s() - CONNECTED_S
    heard = ctx.broker.connections
    for peer in [peer for peer, at_s in heard.items() if at_s < since_s]:
        del heard[peer]


@every(60.0)
def remember(ctx: Ctx) -> None:
    """Store when each worker was last heard of."""
    now_s = monotonic_s()
    for worker_id, session in ctx.broker.sessions.items():
        workers.update(ctx.tx, worker_id, {"seen_ms": round(ctx.now_ms - (now_s - session.seen_s) * 1000)})


@every(3600.0)
def tidy(ctx: Ctx) -> None:
    """Forget expired tokens and answers that nobody will ask for again."""
    users.drop_expired(ctx.tx, ctx.now_ms)
    requests.drop_before(ctx.tx, ctx.now_ms - _DAY_MS)
