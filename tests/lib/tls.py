"""TLS in front of a server on loopback that has none."""

from __future__ import annotations

import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself: the file for clients, and the one with its key for the server."""
    public, key = folder / "certificate.pem", folder / "key.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", *kind, *name, "-keyout", str(key), "-out", str(public)]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    both = folder / "both.pem"
    both.write_bytes(key.read_bytes() + public.read_bytes())
    return public, both


@contextmanager
def tls_front(endpoint: str, certificate: Path) -> Iterator[str]:
    """Give the address (host:port) that speaks TLS and passes all on to `endpoint`."""
    host, _, port = endpoint.removeprefix("http://").partition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(near: socket.socket) -> None:
        with (
            suppress(OSError),
            near,
            socket.create_connection((host, int(port))) as far,
            context.wrap_socket(near, server_side=True) as client,
        ):
            _pass(client, far)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _pass(client: ssl.SSLSocket, far: socket.socket) -> None:
    """Both ways in one thread: a TLS connection bears no two at once."""
    while True:
        ready = [client] if client.pending() else select.select([client, far], [], [])[0]
        for source, target in ((client, far), (far, client)):
            if source in ready:
                data = source.recv(65536)
                if not data:
                    return
                target.sendall(data)
