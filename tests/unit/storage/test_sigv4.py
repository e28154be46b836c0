import datetime
from urllib.parse import parse_qs, urlsplit

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from scitq.errors import UsageError
from scitq.storage import sigv4
from scitq.storage.ranged import MOST_PIECES, PIECE, piece_size
from scitq.storage.s3_config import S3Config

STAMP = "20261122T201500Z"


@pytest.fixture(autouse=True)
def one_moment(monkeypatch):
    moment = datetime.datetime(2026, 11, 22, 20, 15, tzinfo=datetime.UTC)
    monkeypatch.setattr(sigv4, "now_ms", lambda: int(moment.timestamp() * 1000))
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda remove_tzinfo=True: moment.replace(tzinfo=None), raising=False)


@pytest.mark.parametrize("path", ["/b/x", "/b/a b+c%20é~(1)!*'|.dat", "/b/a//b/../c", "/b/" + "日本" * 20])
@pytest.mark.parametrize("token", ["", "session/token+="])
def test_signatures_are_those_of_botocore(path, token):
    ours, theirs = sigv4.Credentials("AK", "SK", token), BotoCredentials("AK", "SK", token or None)
    encoded = sigv4.encode_path(path)
    query = sigv4.encode_query({"uploadId": "a+/b=", "partNumber": "3"})
    headers = {"host": "s3.example:9000", "x-amz-checksum-crc32": "AAAAAA=="}
    request = AWSRequest("PUT", f"http://s3.example:9000{encoded}?{query}", headers=dict(headers))
    request.context["signing"] = {"region": "eu-1"}
    request.context["payload_signing_enabled"] = False
    request.context["timestamp"] = STAMP
    auth = botocore.auth.S3SigV4Auth(theirs, "s3", "eu-1")
    sigv4.sign_headers(ours, "eu-1", "PUT", encoded, query, headers)
    request.headers["X-Amz-Date"] = STAMP
    if token:
        request.headers["X-Amz-Security-Token"] = token
    request.headers["X-Amz-Content-SHA256"] = sigv4.UNSIGNED
    canonical = auth.canonical_request(request)
    signature = auth.signature(auth.string_to_sign(request, canonical), request)
    assert headers["authorization"].endswith(f"Signature={signature}")


def test_signed_addresses_have_what_the_protocol_asks_for():
    query = sigv4.sign_query(sigv4.Credentials("AK", "SK"), "eu-1", "GET", "h", "/b/x", {}, expires_s=10**9)
    found = parse_qs(urlsplit(f"http://h/b/x?{query}").query)
    assert found["X-Amz-Expires"] == ["604800"]
    assert found["X-Amz-Date"] == [STAMP]
    assert "SK" not in query


def test_secrets_are_not_shown():
    credentials = sigv4.Credentials("AK", "very-secret", "token-secret")
    config = S3Config.parse("s3", {"type": "s3", "access_key_id": "AK", "secret_access_key": "very-secret"})
    assert "secret" not in repr(credentials)
    assert "secret" not in repr(config)


@pytest.mark.parametrize(
    ("settings", "bucket", "expected"),
    [
        ({"provider": "AWS", "region": "eu-west-3"}, "b", ("https", "b.s3.eu-west-3.amazonaws.com", "")),
        ({"provider": "AWS"}, "with.dots", ("https", "s3.us-east-1.amazonaws.com", "/with.dots")),
        ({"provider": "AWS", "force_path_style": "true"}, "b", ("https", "s3.us-east-1.amazonaws.com", "/b")),
        ({"provider": "Minio", "endpoint": "http://h:9000"}, "b", ("http", "h:9000", "/b")),
        ({"endpoint": "http://127.0.0.1:9000"}, "b", ("http", "127.0.0.1:9000", "/b")),
        ({"endpoint": "minio.example"}, "b", ("https", "minio.example", "/b")),
        ({"endpoint": "s3.eu-west-3.amazonaws.com"}, "b", ("https", "b.s3.eu-west-3.amazonaws.com", "")),
        ({"provider": "AWS", "endpoint": "http://localhost:4566"}, "b", ("http", "localhost:4566", "/b")),
        ({"provider": "AWS", "endpoint": "http://10.0.0.1"}, "b", ("http", "10.0.0.1", "/b")),
        ({"provider": "Ceph", "endpoint": "ceph.example/base/"}, "b", ("https", "ceph.example", "/base/b")),
        ({"provider": "Other", "endpoint": "http://[::1]:9000", "force_path_style": "false"}, "", ("http", "[::1]:9000", "")),
    ],
)
def test_buckets_are_found_where_the_provider_has_them(settings, bucket, expected):
    config = S3Config.parse("s3", {"type": "s3", **settings})
    origin, base = config.place(bucket, config.endpoint)
    assert ("https" if origin.is_tls else "http", origin.authority, base) == expected


@pytest.mark.parametrize("settings", [{"access_key_id": "x"}, {"secret_access_key": "x"}, {"provider": "Minio"}])
def test_contradictions_are_refused(settings):
    with pytest.raises(UsageError, match="'s3'"):
        S3Config.parse("s3", {"type": "s3", **settings})


@pytest.mark.parametrize("size", [1, PIECE + 1, 5 << 30, PIECE * MOST_PIECES, PIECE * MOST_PIECES + 1, 5 << 40])
def test_a_file_has_never_more_pieces_than_the_service_allows(size):
    assert -(-size // piece_size(size)) <= MOST_PIECES
    assert piece_size(size) % (1 << 20) == 0
