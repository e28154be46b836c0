"""Contract AUTH-10 and AUTH-15: a server out of reach, in every way that can be made on one machine."""

from __future__ import annotations

import http.server
import signal
import socket
import socketserver
import threading

import pytest
from tests.lib.site import Shell, Site, clean_environment, stopped, wait_until
from tests.lib.terminal import Terminal

pytestmark = pytest.mark.xdist_group("cli_unreachable")


@pytest.fixture
def shell(scitq_argv, tmp_path) -> Shell:
    return Shell(scitq_argv, clean_environment(tmp_path) | {"SCITQ_TOKEN": "t", "SCITQ_TIMEOUT": "2"})


@pytest.fixture(scope="module")
def site(tmp_path_factory, scitq_argv):
    with Site(tmp_path_factory.mktemp("unreachable"), scitq_argv) as site:
        yield site


def refused(shell: Shell, address: str, *reasons: str, words: str = "task list") -> str:
    """What is said for a server at `address`, after checking what every such message must have."""
    ran = shell.fails(words, 4, env={"SCITQ_SERVER": address}, deadline_s=30)
    assert ran.out == ""
    assert "Unavailable" in ran.err
    assert address in ran.err
    assert "SCITQ_SERVER" in ran.err
    assert "Traceback" not in ran.err
    for reason in reasons:
        assert reason in ran.err, ran.err
    return ran.err


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_auth_10_closed_port(shell, closed_port):
    refused(shell, f"127.0.0.1:{closed_port}", "refused")
    assert "login failed" in refused(shell, f"127.0.0.1:{closed_port}", "refused", words="login --user admin --password-stdin")
    told = refused(shell, f"localhost:{closed_port}", "refused")
    assert "127.0.0.1" in told
    refused(shell, f"127.0.0.1:{closed_port}", "refused", words="ping")


def test_auth_10_the_default_is_local(shell):
    ran = shell.run("ping", env={"SCITQ_SERVER": None})
    assert ran.status in {0, 3, 4}  # somebody may run a server there, of which this token is not
    if ran.status == 4:
        assert "localhost:50051" in ran.err


def test_auth_10_black_hole(shell):
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        fillers = []
        try:
            for _ in range(8):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(address)
                fillers.append(filler)
            refused(shell, f"127.0.0.1:{address[1]}", "timed out")
        finally:
            for filler in fillers:
                filler.close()


def test_auth_10_unknown_name(shell):
    refused(shell, "no-such-host.invalid:50051", "name not found")


def test_auth_10_an_http_server(shell):
    with socketserver.TCPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            refused(shell, f"127.0.0.1:{server.server_address[1]}", "wrong protocol", "HTTP")
        finally:
            server.shutdown()


def test_auth_10_a_server_that_speaks_first(shell):
    class Banner(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Banner) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            refused(shell, f"127.0.0.1:{server.server_address[1]}", "wrong protocol", "SSH-2.0")
        finally:
            server.shutdown()


def test_auth_10_a_stopped_server(shell, site):
    assert site.server is not None
    with stopped(site.server):
        refused(shell, f"127.0.0.1:{site.port}", "timed out", words="ping")
    wait_until(lambda: site.run("ping").status == 0, "the server's answer")


def test_auth_10_localhost_is_either_loopback(site, scitq_argv, tmp_path):
    assert site.ok("ping", env={"SCITQ_SERVER": f"localhost:{site.port}"}).status == 0
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return  # no IPv6 on this machine: there is nothing to reach
    with Site(tmp_path / "v6", scitq_argv, settings={"bind": "::1"}, is_started=False) as other:
        other.start_server()
        for address in (f"localhost:{other.port}", f"[::1]:{other.port}"):
            assert other.ok("ping", env={"SCITQ_SERVER": address}).status == 0


def test_auth_15_ping_tells_version_and_round_trip(site):
    answer = site.ok("ping --json").json
    assert answer["version"] == site.ok("--version").out.split()[1]
    assert answer["round_trip_ms"] > 0
    assert answer["user"] == "admin"
    assert answer["key"] == site.key
    assert site.fails("ping", 3, env={"SCITQ_TOKEN": "nonsense"}).out == ""


def test_a_request_survives_a_restart_of_the_server(site):
    task = site.create("true", "--hold")
    with Terminal([*site.argv, "task", "wait", "--id", str(task), "--timeout", "120"], site.environment) as terminal:
        terminal.expect("0/1")
        site.restart_server(signal.SIGKILL)
        site.ok(f"task cancel --id {task}")
        status, out = terminal.end()
    assert status == 10, terminal.seen
    assert out == ""
