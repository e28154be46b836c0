"""The wire against peers that are no clients of ours: no token, forged tokens, garbage (contract AUTH-1)."""

from __future__ import annotations

import random
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.lib import kinds
from tests.lib.raw import RawPeer
from tests.lib.site import Site

from scitq.model.task import NewTask, TaskSpec
from scitq.protocol import envelope
from scitq.protocol.messages.task import TaskCreate, TasksCreated
from scitq.protocol.registry import MessageKind, Role

KINDS = [kind for kind in kinds.declared() if Role.ANYONE not in kind.roles]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, scitq_argv: list[str]) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("protocol"), scitq_argv) as made:
        yield made


@pytest.fixture
def peer(site: Site) -> Iterator[RawPeer]:
    with RawPeer(site.port, site.key) as made:
        yield made


def token_of(site: Site) -> str:
    return site.environment["SCITQ_TOKEN"]


def forged(token: str) -> list[str]:
    prefix, payload, signature = token.split(".")
    return [
        "x", "scitq1..", f"{prefix}.{payload}.", f"{prefix}.{payload}.{signature[::-1]}", f"{prefix}.{payload}A.{signature}",
        f"scitq2.{payload}.{signature}", token + "x", "\u00e9" * 40, "scitq1." + "A" * 10_000 + ".x",
    ]  # fmt: skip


def empty_body(kind: MessageKind) -> dict[str, object]:
    """A body that would be good: required fields get the simplest value of their type."""
    made: dict[str, object] = {}
    for field in msgspec.structs.fields(kind.message):
        if field.required:
            made[field.name] = {"int": 0, "str": "x", "float": 0.0, "bytes": b""}.get(getattr(field.type, "__name__", ""), [])
    return made


@pytest.mark.parametrize("kind", KINDS, ids=[kind.kind for kind in KINDS])
def test_auth_01_every_message_without_a_genuine_token_is_refused(site: Site, peer: RawPeer, kind: MessageKind) -> None:
    before = site.ok("task list --show-hidden --json").json
    for token in ["", *forged(token_of(site))]:
        refused = peer.refusal(kind.kind, token, empty_body(kind))
        assert refused is not None
        assert refused.code == "not_logged_in"
    assert site.ok("task list --show-hidden --json").json == before


@pytest.mark.parametrize("kind", KINDS, ids=[kind.kind for kind in KINDS])
def test_a_role_can_send_only_what_is_declared_for_it(site: Site, peer: RawPeer, kind: MessageKind) -> None:
    worker = (site.data / "worker.token").read_text().strip()
    for role, token in ((Role.WORKER, worker), (Role.ADMIN, token_of(site))):
        if role not in kind.roles:
            refused = peer.refusal(kind.kind, token, empty_body(kind))
            assert refused is not None
            assert refused.code == "forbidden"


def test_garbage_is_answered_or_dropped_and_the_server_goes_on(site: Site, peer: RawPeer) -> None:
    source = random.Random(7)
    good = envelope.pack("task.list", "r", token_of(site), {})
    frames = [b"", b"\xc1", b"\xff" * 1000, b"\x9f" * 5000, struct.pack(">BI", 0xDD, 2**32 - 1), struct.pack(">BI", 0xC6, 2**32 - 1) + b"x",
              struct.pack(">BI", 0xDF, 2**31), msgspec.msgpack.encode((9, "ping", "r", "", {})), msgspec.msgpack.encode(["ping"]),
              msgspec.msgpack.encode((1, "no.such", "r", "", {})), msgspec.msgpack.encode((1, "task.list", "r", token_of(site), [1])),
              msgspec.msgpack.encode((1, "task.list", "r", token_of(site), {"limit": "many"})),
              msgspec.msgpack.encode((1, "task.list", "r", token_of(site), {"what": 1})), good + b"more"]  # fmt: skip
    for _ in range(300):
        broken = bytearray(good)
        for _ in range(source.randrange(1, 6)):
            broken[source.randrange(len(broken))] = source.randrange(256)
        frames.append(bytes(broken[: source.randrange(1, len(broken) + 1)]))
    for number, frame in enumerate(frames):
        peer.send(frame)
        if number % 50 == 0:  # Who never reads is sent no more than a queue's length.
            assert peer.refusal("task.list", token_of(site), {}) is None
    peer.send(b"one", b"two", b"three")
    assert peer.refusal("task.list", token_of(site), {}) is None
    assert site.ok("ping").status == 0


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("workflow.show", {"id": 2**63}),
        ("task.show", {"ids": [2**64 - 1]}),
        ("step.act", {"id": 2**63, "action": "pause"}),
        ("recruiter.explain", {"id": 2**63}),
        ("recruiter.simulate", {"steps": [[1, float("inf"), False]]}),
    ],
)
def test_numbers_that_can_not_be_meant_are_told(site: Site, peer: RawPeer, kind: str, body: dict[str, object]) -> None:
    refusal = peer.refusal(kind, token_of(site), body)
    assert refusal is not None
    assert refusal.code == "usage", refusal


def test_bytes_that_are_no_zeromq_on_both_ports_do_no_harm(site: Site) -> None:
    source = random.Random(3)
    for port in (site.port, site.port + 1):
        for data in (
            b"GET / HTTP/1.1\r\n\r\n",
            bytes(source.randrange(256) for _ in range(4000)),
            b"",
            b"\xff" + b"\0" * 8 + b"\x7f" + b"x" * 90,
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(data)
    assert site.ok("ping").status == 0


def test_a_request_that_comes_twice_is_carried_out_once_also_after_kill_9(site: Site, tmp_path: Path) -> None:
    body = TaskCreate(specs=[TaskSpec(container="bare", command="true")], tasks=[NewTask()])
    frame = envelope.pack("task.create", "same-id-" + tmp_path.name, token_of(site), body)
    with RawPeer(site.port, site.key) as peer:
        peer.send(frame)
        first = envelope.read_body(peer.receive().body, TasksCreated)
        peer.send(frame)
        assert envelope.read_body(peer.receive().body, TasksCreated) == first
    site.restart_server(signal.SIGKILL)
    with RawPeer(site.port, site.key) as peer:
        peer.send(frame)
        assert envelope.read_body(peer.receive().body, TasksCreated) == first


def test_secrets_of_storages_and_of_the_server_are_not_shown_to_users(site: Site, peer: RawPeer) -> None:
    secrets = [(site.data / name).read_text().strip() for name in ("worker.token", "token.secret")]
    secrets.append((site.data / "server.key").read_text().split()[0])
    for kind in KINDS:
        if Role.USER in kind.roles:
            answer = peer.ask(kind.kind, token_of(site), empty_body(kind)) if kind.kind not in {"server.stop", "logout"} else None
            assert answer is None or not any(secret.encode() in bytes(answer.body) for secret in secrets)
    assert not any(secret in site.server_log for secret in secrets)
