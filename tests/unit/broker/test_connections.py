"""What the broker remembers of those who speak to it does not grow for ever."""

from __future__ import annotations

from tests.lib.desk import Desk

from scitq.broker.handlers import periodic
from scitq.util.clock import monotonic_s


def test_peers_that_are_silent_are_forgotten(desk: Desk) -> None:
    now_s = monotonic_s()
    desk.broker.connections.update({b"gone": now_s - periodic.CONNECTED_S - 1, b"here": now_s})
    desk.do(periodic.forget)
    assert list(desk.broker.connections) == [b"here"]
