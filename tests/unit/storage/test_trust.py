"""Whose certificates are trusted (docs/storage.md)."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from tests.lib.tls import make_certificate, tls_front
from tests.lib.webserver import WebServer

from scitq.errors import StorageError
from scitq.storage import trust
from scitq.storage.base import Cancel
from scitq.storage.wire import Origin, Wire


@pytest.mark.parametrize("place", trust.BUNDLES)
def test_the_systems_file_is_found_wherever_a_distribution_keeps_it(tmp_path: Path, place: str) -> None:
    file = Path(f"{tmp_path}{place}")
    file.parent.mkdir(parents=True)
    file.write_text("x")
    assert trust.find_bundle({}, str(tmp_path)) == str(file)


def test_what_came_with_scitq_is_trusted_where_the_system_keeps_nothing(tmp_path: Path) -> None:
    empty = Path(f"{tmp_path}{trust.BUNDLES[0]}")
    empty.parent.mkdir(parents=True)
    empty.touch()
    assert len(ssl.create_default_context(cafile=trust.find_bundle({}, str(tmp_path))).get_ca_certs()) > 50


@pytest.mark.parametrize("variable", trust.VARIABLES)
def test_a_sites_variable_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for other in trust.VARIABLES:
        monkeypatch.delenv(other, raising=False)
    certificate, with_key = make_certificate(tmp_path)
    with WebServer.running() as web, tls_front(f"http://{web.address}", with_key) as address:
        web.files["/x"] = b"content"
        for named, is_trusted in ((str(certificate), True), ("", False)):
            monkeypatch.setenv(variable, named)
            wire, origin = Wire(), Origin.of(f"https://{address}")
            if is_trusted:
                with wire.exchange(origin, "GET", "/x", {"Host": address}, cancel=Cancel()) as reply:
                    assert reply.status == 200
            else:
                with (
                    pytest.raises(StorageError, match="not trusted"),
                    wire.exchange(origin, "GET", "/x", {"Host": address}, cancel=Cancel()),
                ):
                    pass
            wire.close()


def test_certificates_that_are_not_there_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent.pem")
    with (
        pytest.raises(StorageError, match=r"/nonexistent\.pem can't be read"),
        Wire().exchange(Origin.of("https://127.0.0.1:9"), "GET", "/", {}, cancel=Cancel()),
    ):
        pass
