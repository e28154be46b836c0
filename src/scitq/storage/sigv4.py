"""Amazon's signature, version 4, for the service S3: in headers and in URLs.

Our own because botocore's takes longer than sending a small object (docs/storage.md, "Speed"); the tests check it against botocore's.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from scitq.util.clock import now_ms

UNSIGNED: Final = "UNSIGNED-PAYLOAD"
_ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key; never shown."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


def encode_path(path: str) -> str:
    """`path` as it stands in a request: all but unreserved characters and slashes escaped."""
    return quote(path, safe="/-_.~")


def encode_query(parameters: Mapping[str, str]) -> str:
    """`parameters` in the canonical order and form."""
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in sorted(parameters.items()))


def sign_headers(
    credentials: Credentials, region: str, method: str, path: str, query: str, headers: dict[str, str], *, payload: str = UNSIGNED
) -> None:
    """Add date, payload hash and signature to `headers`, whose names are in lower case and include `host`."""
    stamp = _stamp()
    headers["x-amz-date"] = stamp
    headers["x-amz-content-sha256"] = payload
    if credentials.session_token:
        headers["x-amz-security-token"] = credentials.session_token
    names = sorted(headers)
    signed = ";".join(names)
    canonical = "".join(f"{name}:{headers[name].strip()}\n" for name in names)
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    signature = _signature(credentials, region, stamp, scope, f"{method}\n{path}\n{query}\n{canonical}\n{signed}\n{payload}")
    headers["authorization"] = f"{_ALGORITHM} Credential={credentials.access_key_id}/{scope}, SignedHeaders={signed}, Signature={signature}"


def sign_query(
    credentials: Credentials, region: str, method: str, host: str, path: str, parameters: Mapping[str, str], *, expires_s: int
) -> str:
    """The query that makes `method` on `path` at `host` possible without keys for `expires_s` seconds (a week at most)."""
    stamp = _stamp()
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    all_parameters = {
        **parameters,
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{credentials.access_key_id}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(min(expires_s, 604_800)),
        "X-Amz-SignedHeaders": "host",
    }
    if credentials.session_token:
        all_parameters["X-Amz-Security-Token"] = credentials.session_token
    query = encode_query(all_parameters)
    signature = _signature(credentials, region, stamp, scope, f"{method}\n{path}\n{query}\nhost:{host}\n\nhost\n{UNSIGNED}")
    return f"{query}&X-Amz-Signature={signature}"


def _stamp() -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_ms() / 1000))


def _signature(credentials: Credentials, region: str, stamp: str, scope: str, canonical_request: str) -> str:
    text = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(canonical_request.encode()).hexdigest()}"
    return hmac.new(_signing_key(credentials, region, stamp[:8]), text.encode(), "sha256").hexdigest()


_keys: dict[tuple[str, str, str], bytes] = {}


def _signing_key(credentials: Credentials, region: str, day: str) -> bytes:
    cached = _keys.get((credentials.secret_access_key, region, day))
    if cached is None:
        cached = f"AWS4{credentials.secret_access_key}".encode()
        for word in (day, region, "s3", "aws4_request"):
            cached = hmac.digest(cached, word.encode(), "sha256")
        if len(_keys) > 100:
            _keys.clear()
        _keys[credentials.secret_access_key, region, day] = cached
    return cached
