"""Peers that mean harm, or are broken: every field of every message of a wrong type, long frames, connections that never speak."""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import psutil
import pytest
from tests.lib import kinds
from tests.lib.raw import RawPeer
from tests.lib.site import Site, wait_until

from scitq.protocol import envelope
from scitq.protocol.envelope import ErrorBody
from scitq.protocol.messages.agent import AgentRegister, Hardware
from scitq.protocol.registry import MessageKind, Role

WRONG: list[Any] = [
    None, True, -1, 1.5, math.nan, math.inf, 2**63, 2**64 - 1, -(2**63), "", "x", "\0", "é" * 5000, b"x", b"\xff" * 9,
    [], [[]], [None], ["x"], [0], [-1], [[0, -1, 0]], [2**64 - 1], {}, {"a": {}}, {"": ""}, {"a": "b"}, {1: 2}, [{}] * 50,
]  # fmt: skip
ENDING = {"server.stop", "logout", "agent.goodbye"}
"""What ends a server or a session when it is right."""
KINDS = [kind for kind in kinds.declared() if kind.kind not in ENDING]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, scitq_argv: list[str]) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("hostile"), scitq_argv) as made:
        yield made


@pytest.fixture
def peer(site: Site) -> Iterator[RawPeer]:
    with RawPeer(site.port, site.key) as made:
        yield made


def good_values(kind: MessageKind) -> dict[str, Any]:
    """The simplest values of the fields that must be there."""
    plain = {"int": 1, "str": "x", "float": 0.0, "bytes": b"", "bool": False}
    return {
        field.name: plain.get(getattr(field.type, "__name__", ""), [])
        for field in msgspec.structs.fields(kind.message)
        if field.required
    }  # fmt: skip


def bodies(kind: MessageKind) -> Iterator[object]:
    good = good_values(kind)
    yield from WRONG
    for field in msgspec.structs.fields(kind.message):
        yield {name: value for name, value in good.items() if name != field.name}
        for value in WRONG:
            yield good | {field.name: value}


@pytest.mark.parametrize("kind", KINDS, ids=[kind.kind for kind in KINDS])
def test_every_field_of_every_message_may_be_of_any_type_and_is_refused_in_words(site: Site, peer: RawPeer, kind: MessageKind) -> None:
    token = site.environment["SCITQ_TOKEN"]
    if Role.WORKER in kind.roles:
        token = (site.data / "worker.token").read_text().strip()
        register = AgentRegister(
            uid="hostile", name="hostile", host="h", hardware=Hardware(cpus=1, mem_gib=1, disk_gb=1), runtimes=["bare"]
        )
        assert peer.refusal("agent.register", token, register) is None
    for body in bodies(kind):
        refused = peer.refusal(kind.kind, token, body)
        assert refused is None or "error in the server" not in refused.message, (body, refused, site.server_log[-2000:])
    assert "Traceback" not in site.server_log


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf, 2**64 - 1, -(2**63), 1e300])
def test_an_end_of_time_of_an_agent_is_refused_and_its_worker_still_listed(site: Site, peer: RawPeer, seconds: float) -> None:
    users, agents = site.environment["SCITQ_TOKEN"], (site.data / "worker.token").read_text().strip()
    known = AgentRegister(uid="timeless", name="timeless", host="h", hardware=Hardware(cpus=1, mem_gib=1, disk_gb=1), runtimes=["bare"])
    assert peer.refusal("agent.register", agents, known) is None
    for kind, body in (("agent.report", {"seq": 0}), ("agent.register", msgspec.to_builtins(known))):
        refused = peer.refusal(kind, agents, body | {"seconds_left": seconds})
        assert refused is not None
        assert refused.code == "usage"
        assert peer.refusal("worker.list", users, {}) is None


def long_frame(kind: str, token: str, count: int = 10_000_000) -> bytes:
    """A request with a list of many numbers, which takes long to look into."""
    head = b"\x95\x01" + b"".join(msgspec.msgpack.encode(text) for text in (kind, "r", token))
    return head + struct.pack(">BI", 0xDD, count) + b"\x01" * count


def test_long_messages_are_looked_into_only_after_their_sender_was_admitted(site: Site, peer: RawPeer) -> None:
    def refusal(frame: bytes) -> ErrorBody:
        peer.send(frame)
        return msgspec.msgpack.decode(peer.receive().body, type=ErrorBody)

    token = site.environment["SCITQ_TOKEN"]
    assert refusal(long_frame("task.show", "")).code == "not_logged_in"
    assert refusal(long_frame("task.show", token + "x")).code == "not_logged_in"
    assert refusal(long_frame("agent.report", token)).code == "forbidden"
    assert refusal(long_frame("task.show", token)).code == "protocol"
    assert "is as long as that" in refusal(long_frame("login", "")).message
    assert refusal(b"\x95" + b"\x91" * 1_000_000).code == "protocol"
    assert refusal(b"\x95\x01" + struct.pack(">BI", 0xDB, 2**32 - 1) + b"x" * 1_000_000).code == "protocol"
    assert refusal(b"\x95\x01\x01\x01\x01" + b"x" * 1_000_000).code == "protocol"
    assert envelope.peek(long_frame("task.show", "t", 5)) == ("task.show", "r", "t")


def test_connections_that_say_nothing_or_half_a_greeting_cost_little(site: Site, peer: RawPeer) -> None:
    assert site.server is not None
    process = psutil.Process(site.server.pid)
    files, memory = process.num_fds(), process.memory_info().rss
    greeting = b"\xff" + b"\0" * 8 + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + b"\0" * 32
    giant = greeting + b"\x06" + struct.pack(">Q", 2**31)
    token = site.environment["SCITQ_TOKEN"]
    connections = []
    try:
        for number in range(600):
            connection = socket.create_connection(("127.0.0.1", site.port), timeout=30)
            connection.sendall((b"", greeting[:10], greeting, giant)[number % 4])
            connections.append(connection)
        wait_until(lambda: process.num_fds() > files + 250, "the connections")
        assert peer.refusal("task.list", token, {}) is None
        assert site.ok("ping").status == 0
        assert process.memory_info().rss - memory < 100 << 20
    finally:
        for connection in connections:
            connection.close()

    assert peer.refusal("task.list", token, {}) is None
