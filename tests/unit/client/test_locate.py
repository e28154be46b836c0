import os

import msgspec
import pytest

from scitq.client import locate
from scitq.client.locate import Address
from scitq.errors import UsageError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host", ("host", 50051)),
        ("host:1", ("host", 1)),
        (" 10.0.0.1:65535\n", ("10.0.0.1", 65535)),
        ("[::1]:7", ("::1", 7)),
        ("[::1]", ("::1", 50051)),
        ("::1", ("::1", 50051)),
        ("tcp://h:3", ("h", 3)),
    ],
)
def test_addresses(text, address):
    assert locate.parse_address(text) == address


@pytest.mark.parametrize("text", ["", ":1", "h:", "h:x", "h:0", "h:65536", "h:-1", "[::1", "[::1]x", "a b", "http://x/", "u@h", "h:²"])
def test_what_is_no_address(text):
    with pytest.raises(UsageError, match="here"):
        locate.parse_address(text, "here")


def test_the_port_is_shown_with_brackets_for_ipv6():
    assert str(Address("::1", 5)) == "[::1]:5"
    assert str(Address("h", 5)) == "h:5"


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("SCITQ_SERVER", raising=False)
    locate.servers_folder().mkdir(parents=True)

    def announce(port: int, pid: int = os.getpid(), started: int | None = None) -> None:
        word = locate.RunningServer(
            host="127.0.0.1",
            port=port,
            key="k",
            pid=pid,
            started=started if started is not None else locate.process_started(pid) or 0,
            data_dir="/d",
            since_ms=port,
        )
        (locate.servers_folder() / f"{port}.json").write_bytes(msgspec.json.encode(word))

    return announce


def test_which_server_is_meant(runtime, monkeypatch):
    assert locate.find_server() == Address("localhost", 50051)
    assert locate.find_server(None, Address("conf", 3)) == Address("conf", 3)
    runtime(4000, started=1)
    assert locate.find_server() == Address("localhost", 50051)
    runtime(4001)
    runtime(4002)
    assert locate.find_server() == Address("127.0.0.1", 4002)
    runtime(50051)
    assert locate.find_server() == Address("127.0.0.1", 50051)
    (locate.servers_folder() / "x.json").write_text("nonsense")
    assert len(locate.running_servers()) == 3
    monkeypatch.setenv("SCITQ_SERVER", " elsewhere:9 ")
    assert locate.find_server() == Address("elsewhere", 9)
    assert locate.find_server("given") == Address("given", 50051)


def test_the_key_of_ones_own_server(runtime):
    runtime(4001)
    assert locate.announced_key(Address("localhost", 4001)) == "k"
    assert locate.announced_key(Address("127.0.0.1", 4001)) == "k"
    assert locate.announced_key(Address("127.0.0.1", 4002)) is None
    assert locate.announced_key(Address("elsewhere", 4001)) is None


def test_a_process_that_is_gone_has_no_start():
    assert locate.process_started(os.getpid()) is not None
    assert locate.process_started(2**22 + 5) is None
