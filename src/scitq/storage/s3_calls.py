"""The calls of Amazon's S3 protocol that scitq makes: signed, checked, and their errors in our words."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import unquote_plus
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from scitq.errors import ScitqError, SourceMissingError, StorageError, TransientStorageError
from scitq.storage.base import Cancel, Entry
from scitq.storage.s3_config import S3Config
from scitq.storage.sigv4 import UNSIGNED, encode_path, encode_query, sign_headers, sign_query
from scitq.storage.wire import Body, ConnectionBrokenError, Origin, Reply, Wire

_TRANSIENT_CODES: Final = frozenset({"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable", "OperationAborted", "BadDigest"})
_REFUSED_CODES: Final = frozenset(
    {"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AllAccessDisabled", "AccountProblem"}
)


class S3Error(StorageError):
    """The service said no, with a code of its own."""

    s3_code = ""


class S3Calls:
    """One service; thread-safe."""

    def __init__(self, name: str, config: S3Config) -> None:
        self.name, self.config = name, config
        self.wire = Wire(verify=config.verify, ca_file=config.ca_file)
        self.knows_crc = True
        """Whether the service checks CRC-32 sums, as far as seen; if not it gets MD5 sums as well."""
        self.keeps_whole_crc = True
        """Whether it keeps them for what is stored in parts, as far as seen; if not they are noted beside the object."""
        self._moved: dict[str, tuple[str, str]] = {}

    @contextmanager
    def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        *,
        length: int = 0,
        cancel: Cancel,
    ) -> Iterator[Reply]:
        """Make one call on `path` (bucket and key) and give its reply, whose status is below 300.

        Raises SourceMissingError for what is not there, TransientStorageError for what may pass, S3Error or StorageError for a no.
        """
        bucket = path.partition("/")[0]
        payload = hashlib.sha256(body).hexdigest() if isinstance(body, bytes) and len(body) <= 4096 else UNSIGNED
        sent = dict(headers or {})
        if body is not None or method in {"PUT", "POST"}:
            sent["content-length"] = str(len(body) if isinstance(body, bytes) else length)
        for attempt in (1, 2):
            region = self._whereabouts(bucket)[1]
            origin, target, all_headers = self.request(method, path, query or {}, sent, payload)
            try:
                with self.wire.exchange(origin, method, target, all_headers, body, cancel=cancel) as reply:
                    if reply.status < 300:
                        yield reply
                        return
                    found = _error_fields(reply.read(1 << 20))
                    if attempt == 1 and self._has_moved(bucket, region, method, reply, found, cancel):
                        continue
                    raise s3_error(self.uri(path), method, reply.status, found.get("Code", ""), found.get("Message", ""))
            except ConnectionBrokenError as error:
                raise ConnectionBrokenError(f"{self.uri(path)}: {error}") from error

    def request(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], payload: str = UNSIGNED
    ) -> tuple[Origin, str, dict[str, str]]:
        """A signed request: the server that it goes to, path and query there, and all headers."""
        bucket, _, key = path.partition("/")
        endpoint, region = self._whereabouts(bucket)
        origin, base = self.config.place(bucket, endpoint)
        target = base + encode_path(f"/{key}" if bucket else "/")
        text = encode_query(query)
        all_headers = {"host": origin.authority, **headers}
        credentials = self.config.credentials()
        if credentials is not None:
            sign_headers(credentials, region, method, target, text, all_headers, payload=payload)
        return origin, f"{target}?{text}" if text else target, all_headers

    def uri(self, path: str) -> str:
        """The URI of `path`, for messages."""
        return f"{self.name}://{path}"

    def presign(self, method: str, path: str, query: Mapping[str, str] | None = None, *, expires_s: int) -> str | None:
        """A URL for one call; None when there are no credentials to sign with."""
        credentials = self.config.credentials()
        if credentials is None:
            return None
        bucket, _, key = path.partition("/")
        endpoint, region = self._whereabouts(bucket)
        origin, base = self.config.place(bucket, endpoint)
        target = base + encode_path(f"/{key}")
        text = sign_query(credentials, region, method, origin.authority, target, query or {}, expires_s=expires_s)
        return f"{'https' if origin.is_tls else 'http'}://{origin.authority}{target}?{text}"

    def _whereabouts(self, bucket: str) -> tuple[str, str]:
        return self._moved.get(bucket, (self.config.endpoint, self.config.region))

    def _has_moved(self, bucket: str, region: str, method: str, reply: Reply, found: Mapping[str, str], cancel: Cancel) -> bool:
        """Whether this is the answer for a bucket of another region, told in a header or in the error; the next try goes there."""
        if reply.status not in {301, 307, 400} or not bucket:
            return False
        actual = reply.headers.get("x-amz-bucket-region", "") or found.get("Region", "")
        if not actual and method == "HEAD":
            # Answers to HEAD have no body: an ordinary question is told the region, and notes it.
            with suppress(ScitqError), self.call("GET", bucket, {"location": ""}, cancel=cancel) as told:
                told.read(1 << 20)
            return self._whereabouts(bucket)[1] != region
        if not actual or actual == region:
            return False
        self._moved[bucket] = (self.config.endpoint.replace(f".{self.config.region}.", f".{actual}."), actual)
        return True

    def call_xml(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        expected: str = "",
        cancel: Cancel,
    ) -> ElementTree.Element:
        """Make a call whose answer is XML, and give it; an error told with status 200 is raised too."""
        with self.call(method, path, query, headers, body, cancel=cancel) as reply:
            data = reply.read()
            status = reply.status
        try:
            root = ElementTree.fromstring(data)  # noqa: S314 - entities are off in expat's Python binding for external ones
        except ElementTree.ParseError as error:
            raise TransientStorageError(f"{self.uri(path)}: the answer is not XML ({error})") from error
        if _tag(root) == "Error":
            found = _error_fields(data)
            raise s3_error(self.uri(path), method, status if status >= 300 else 500, found.get("Code", ""), found.get("Message", ""))
        if expected and _tag(root) != expected:
            raise TransientStorageError(
                f"{self.uri(path)}: the answer is no {expected} of S3 but {_tag(root)!r}; something else answers there"
            )
        return root

    def head(self, path: str, *, cancel: Cancel) -> tuple[Entry, dict[str, str]]:
        """The object's entry and all headers, checksums included."""
        with self.call("HEAD", path, headers={"x-amz-checksum-mode": "ENABLED", **self.config.read_headers}, cancel=cancel) as reply:
            return entry_of(path, reply.headers, reply.length), reply.headers

    def list_page(self, bucket: str, prefix: str, token: str, *, recursive: bool, cancel: Cancel) -> tuple[list[Entry], str]:
        """Up to 1,000 entries and the token of the next page, empty at the end."""
        query = {"list-type": "2", "encoding-type": "url", "prefix": prefix}
        if not recursive:
            query["delimiter"] = "/"
        if token:
            query["continuation-token"] = token
        root = self.call_xml("GET", bucket, query, headers=self.config.read_headers, expected="ListBucketResult", cancel=cancel)
        entries, following, is_cut = [], "", False
        is_encoded = any(_tag(child) == "EncodingType" and child.text == "url" for child in root)
        for child in root:
            match _tag(child):
                case "Contents":
                    found = {_tag(part): part.text or "" for part in child}
                    key = unquote_plus(found["Key"]) if is_encoded else found["Key"]
                    entries.append(
                        Entry(f"{bucket}/{key}", int(found["Size"]), _iso_ms(found["LastModified"]), _etag(found.get("ETag", "")))
                    )
                case "CommonPrefixes":
                    key = next((part.text or "" for part in child if _tag(part) == "Prefix"), "")
                    entries.append(Entry(f"{bucket}/{unquote_plus(key) if is_encoded else key}", 0))
                case "NextContinuationToken":
                    following = child.text or ""
                case "IsTruncated":
                    is_cut = child.text == "true"
                case _:
                    pass
        if is_cut and not following:
            raise TransientStorageError(f"{self.uri(bucket)}: the service cut its list short and does not tell how to go on")
        return entries, following

    def buckets(self, *, cancel: Cancel) -> list[str]:
        """The names of all buckets of these credentials."""
        root = self.call_xml("GET", "", {}, expected="ListAllMyBucketsResult", cancel=cancel)
        return [part.text or "" for part in root.iter() if _tag(part) == "Name"]

    def delete_batch(self, bucket: str, keys: Sequence[str], *, cancel: Cancel) -> None:
        """Delete up to 1,000 keys of one bucket; StorageError naming the first that could not be."""
        objects = "".join(f"<Object><Key>{escape(key, {chr(10): '&#10;', chr(13): '&#13;'})}</Key></Object>" for key in keys)
        body = f'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Quiet>true</Quiet>{objects}</Delete>'.encode()
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        headers = {"content-md5": base64.b64encode(digest).decode(), "content-type": "application/xml"}
        root = self.call_xml("POST", bucket, {"delete": ""}, body, headers, cancel=cancel)
        for child in root:
            if _tag(child) == "Error":
                found = {_tag(part): part.text or "" for part in child}
                raise s3_error(self.uri(f"{bucket}/{found.get('Key', '')}"), "DELETE", 403, found.get("Code", ""), found.get("Message", ""))

    def start_multipart(self, path: str, noted: Mapping[str, str] | None = None, *, cancel: Cancel) -> tuple[str, bool]:
        """Begin an upload in parts: its id, and whether the service checks CRC-32 sums of the whole. noted: further headers."""
        headers = {"x-amz-checksum-algorithm": "CRC32", "x-amz-checksum-type": "FULL_OBJECT", **self.config.upload_headers, **(noted or {})}
        with self.call("POST", path, {"uploads": ""}, headers, b"", cancel=cancel) as reply:
            knows_crc = reply.headers.get("x-amz-checksum-algorithm", "").upper() == "CRC32"
            root = ElementTree.fromstring(reply.read())  # noqa: S314 - see call_xml
        upload_id = next((child.text or "" for child in root if _tag(child) == "UploadId"), "")
        if not upload_id:
            raise StorageError(f"{self.uri(path)}: the service gave no id for an upload in parts")
        return upload_id, knows_crc

    def complete_multipart(self, path: str, upload_id: str, parts: Sequence[tuple[str, str]], crc: str, *, cancel: Cancel) -> str:
        """Make the object of `parts` (ETag and, where checked, CRC-32 each); returns its ETag."""
        items = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag)}</ETag>"
            + (f"<ChecksumCRC32>{part_crc}</ChecksumCRC32>" if part_crc else "")
            + "</Part>"
            for number, (etag, part_crc) in enumerate(parts, 1)
        )
        body = f'<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{items}</CompleteMultipartUpload>'.encode()
        headers = {"content-type": "application/xml"} | ({"x-amz-checksum-crc32": crc, "x-amz-checksum-type": "FULL_OBJECT"} if crc else {})
        root = self.call_xml("POST", path, {"uploadId": upload_id}, body, headers, cancel=cancel)
        return next((_etag(child.text or "") or "" for child in root if _tag(child) == "ETag"), "")

    def close(self) -> None:
        """Close idle connections."""
        self.wire.close()


def s3_error(uri: str, method: str, status: int, code: str, message: str) -> ScitqError:
    """The error for what the service answered."""
    words = ": ".join(word for word in (code, message) if word) or f"status {status}"
    if code == "NoSuchBucket":
        return SourceMissingError(f"{uri}: there is no such bucket")
    if code == "NoSuchUpload":
        return S3Error(f"{uri}: the upload in parts is gone ({words})")
    if status == 404:
        return SourceMissingError(f"{uri}: no such object")
    if status == 412:
        return StorageError(f"{uri} changed since it was listed; try again")
    if code == "RequestTimeTooSkewed":
        return S3Error(f"{uri}: access refused ({words}); set the clock of this machine right")
    if code in _REFUSED_CODES or status in {401, 403}:
        hint = "check the keys in scitq.yaml and their rights"
        if method == "HEAD":
            hint += "; without the right to list, a missing object looks like this too"
        return S3Error(f"{uri}: access refused ({words}); {hint}")
    if status >= 500 or status in {408, 429} or code in _TRANSIENT_CODES:
        return TransientStorageError(f"{uri}: the service failed ({words})")
    return S3Error(f"{uri}: the service refused ({words})")


def entry_of(path: str, headers: Mapping[str, str], size: int | None) -> Entry:
    """The entry that the headers of an answer describe."""
    modified = headers.get("last-modified", "")
    try:
        modified_ms = int(parsedate_to_datetime(modified).timestamp() * 1000) if modified else None
    except ValueError:
        modified_ms = None
    return Entry(path, -1 if size is None else size, modified_ms, _etag(headers.get("etag", "")))


def _error_fields(body: bytes) -> dict[str, str]:
    """What an error says: Code, Message, Region and more; nothing when it is none of S3's."""
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - see call_xml
    except ElementTree.ParseError:
        return {}
    return {_tag(child): (child.text or "").strip() for child in root}


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _etag(text: str) -> str | None:
    return text.removeprefix("W/").strip('"') or None


def _iso_ms(text: str) -> int | None:
    try:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
    except ValueError:
        return None
