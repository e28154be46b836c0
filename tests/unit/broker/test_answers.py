"""What the loop says when an answer can't be put into a message: an error, never nothing."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from tests.lib.desk import ADMIN, Desk, HandAgent
from tests.lib.raw import RawPeer

from scitq.broker.loop import Loop
from scitq.broker.wire import Wire
from scitq.errors import ScitqError
from scitq.protocol import tokens
from scitq.protocol.messages.worker import WorkerList


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "data")


@pytest.fixture
def peer(desk: Desk) -> Iterator[RawPeer]:
    public, secret = zmq.curve_keypair()
    wire = None
    while wire is None:
        port = random.randrange(20_000, 60_000)
        try:
            wire = Wire("127.0.0.1", port, secret, public)
        except ScitqError:
            continue
    loop = Loop(desk.broker, wire)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        with RawPeer(port, public.decode()) as made:
            yield made
    finally:
        loop.stop()
        thread.join()
        loop.close()


def test_a_number_that_no_message_holds_is_an_error_and_not_silence(desk: Desk, peer: RawPeer) -> None:
    worker = HandAgent(desk).id
    desk.broker.live_tokens = {ADMIN.token_id}
    token = tokens.issue(ADMIN, desk.broker.secrets.token_key)
    desk.broker.fleet.workers[worker].ends_s = 1e300
    refused = peer.refusal("worker.list", token, WorkerList())
    assert refused is not None
    assert "too large" in refused.message
    desk.broker.fleet.workers[worker].ends_s = 1e6
    assert peer.refusal("worker.list", token, WorkerList()) is None
