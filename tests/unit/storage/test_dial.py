"""Connections that are made slowly or never: cancelled while they wait, whatever they wait for."""

from __future__ import annotations

import socket
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest

from scitq.errors import CancelledError, StorageError, TransientStorageError
from scitq.storage.base import Cancel
from scitq.storage.wire import Origin, Wire


@contextmanager
def deaf():
    """A server that takes connections and says nothing; gives its port and an event: somebody has spoken to it."""
    listener, spoken, kept = socket.create_server(("127.0.0.1", 0)), threading.Event(), []

    def accept():
        while True:
            try:
                kept.append(listener.accept()[0])
            except OSError:
                return
            if kept[-1].recv(1):
                spoken.set()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1], spoken
    finally:
        listener.close()
        for each in kept:
            each.close()


def exchange(origin, cancel, ended):
    wire = Wire()
    try:
        with wire.exchange(origin, "GET", "/", {"host": "x"}, cancel=cancel):
            pass
    except BaseException as error:  # noqa: BLE001 - told to the test
        ended.append(error)
    finally:
        wire.close()


def begun(origin, cancel):
    ended = []
    thread = threading.Thread(target=exchange, args=(origin, cancel, ended), daemon=True)
    thread.start()
    return thread, ended


@pytest.mark.parametrize("way", ["handshake", "tunnel", "answer"])
def test_a_server_that_says_nothing_is_left_at_once_when_cancelled(monkeypatch, way):
    with deaf() as (port, spoken):
        if way == "tunnel":
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        origin = Origin(way != "answer", "storage.invalid" if way == "tunnel" else "127.0.0.1", port)
        cancel = Cancel()
        thread, ended = begun(origin, cancel)
        assert spoken.wait(60)
        cancel.cancel()
        thread.join(30)  # silence alone would end it after 60 s
    assert [type(error) for error in ended] == [CancelledError]


def test_a_connection_that_nobody_accepts_is_left_when_cancelled():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port, queued = listener.getsockname()[1], []
        for _ in range(8):  # until the queue is full and the kernel answers no more
            queued.append(socket.socket())
            queued[-1].setblocking(False)
            queued[-1].connect_ex(("127.0.0.1", port))
        cancel = Cancel()
        thread, ended = begun(Origin(False, "127.0.0.1", port), cancel)
        thread.join(0.5)
        assert thread.is_alive()
        cancel.cancel()
        thread.join(15)  # alone it would give up after 20 s
        assert [type(error) for error in ended] == [CancelledError]
        for each in queued:
            each.close()


def test_a_name_that_takes_long_to_be_looked_up_is_left_when_cancelled(monkeypatch):
    asked, go_on, ask = threading.Event(), threading.Event(), socket.getaddrinfo

    def slow(host, *more, **options):
        if not options.get("flags"):
            asked.set()
            go_on.wait(60)
        return ask(host, *more, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    cancel = Cancel()
    thread, ended = begun(Origin(False, "localhost", 9), cancel)
    assert asked.wait(60)
    cancel.cancel()
    thread.join(30)
    assert [type(error) for error in ended] == [CancelledError]
    go_on.set()


@pytest.mark.parametrize(("host", "words"), [("a..b", "can't be resolved"), ("127.0.0.1", "refused")])
def test_what_can_not_be_reached_is_said_in_words(host, words):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    ended = []
    exchange(Origin(False, host, port), Cancel(), ended)
    assert isinstance(ended[0], TransientStorageError)
    assert words in str(ended[0])


def test_failed_handshakes_leave_no_socket_open():
    def opened():
        return len(list(Path("/proc/self/fd").iterdir()))

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            for _ in range(5):
                client = listener.accept()[0]
                client.recv(1000)
                client.sendall(b"HTTP/1.1 400 no TLS here\r\n\r\n")
                client.close()

        thread = threading.Thread(target=answer)
        thread.start()
        before, errors = opened(), []
        for _ in range(5):
            exchange(Origin(True, "127.0.0.1", listener.getsockname()[1]), Cancel(), errors)
        thread.join(60)
        assert opened() <= before
    assert all(isinstance(error, StorageError) for error in errors)
