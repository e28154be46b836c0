"""Storages of type `s3`, spoken natively: small files in one call, large ones in ranges and parts (docs/storage.md, "S3")."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from scitq.errors import SourceMissingError, StorageError
from scitq.storage.base import Cancel, Entry, Progress, Readable, ignore_progress
from scitq.storage.s3_calls import S3Calls
from scitq.storage.s3_config import S3Config
from scitq.storage.s3_download import Download
from scitq.storage.s3_small import BATCH, BATCHES_AT_ONCE, SMALL, SmallDownloads
from scitq.storage.s3_upload import Upload, abort_multipart, require_object_key
from scitq.storage.transfer import OneByOne, run_parallel, with_retries

_NOT_XML: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""What XML can't hold, so that a key with it can't be one of a batch."""


class S3Storage(OneByOne):
    """One S3 service. Keys are `bucket/key`."""

    def __init__(self, name: str, config: S3Config) -> None:
        self.name = name
        self._calls = S3Calls(name, config)

    def uri(self, key: str) -> str:
        """See Storage."""
        return self._calls.uri(key)

    def entries(self, prefix: str, *, recursive: bool = True, cancel: Cancel | None = None) -> Iterator[Entry]:
        """See Storage."""
        token = cancel or Cancel()
        bucket, slash, start = prefix.partition("/")
        if slash:
            yield from self._entries(bucket, start, recursive, token)
            return
        for name in with_retries(lambda: self._calls.buckets(cancel=token), cancel=token):
            if not name.startswith(bucket):
                continue
            if recursive:
                yield from self._entries(name, "", recursive, token)
            else:
                yield Entry(f"{name}/", 0)

    def _entries(self, bucket: str, start: str, recursive: bool, cancel: Cancel) -> Iterator[Entry]:
        following = ""
        while True:
            position = following
            page, following = with_retries(
                # The default binds the value of this turn of the loop, which mypy does not follow.
                lambda at=position: self._calls.list_page(bucket, start, at, recursive=recursive, cancel=cancel),  # type: ignore[misc]
                cancel=cancel,
            )
            prefix = f"{bucket}/{start}"
            yield from (entry for entry in page if not entry.is_folder or (not recursive and entry.key != prefix))
            if not following:
                return

    def stat(self, key: str) -> Entry | None:
        """See Storage."""
        if not key.partition("/")[2] or key.endswith("/"):
            return None
        try:
            return self._head(key, Cancel())[0]
        except SourceMissingError:
            return None

    def _head(self, key: str, cancel: Cancel) -> tuple[Entry, dict[str, str]]:
        return with_retries(lambda: self._calls.head(key, cancel=cancel), cancel=cancel)

    def download(
        self, key: str, target: Path, *, entry: Entry | None = None, progress: Progress = ignore_progress, cancel: Cancel | None = None
    ) -> Entry:
        """See Storage."""
        return Download(self._calls, key, progress, cancel or Cancel()).run(target, entry)

    def download_many(
        self, pairs: Sequence[tuple[Entry, Path]], *, progress: Progress = ignore_progress, cancel: Cancel | None = None
    ) -> None:
        """See Storage."""
        token = cancel or Cancel()
        by_bucket: dict[str, list[tuple[Entry, Path]]] = {}
        others = []
        for pair in pairs:
            if 0 <= pair[0].size <= SMALL:
                by_bucket.setdefault(pair[0].key.partition("/")[0], []).append(pair)
            else:
                others.append(pair)

        def job(batch: Sequence[tuple[Entry, Path]]) -> Callable[[Cancel], None]:
            return lambda ours: others.extend(SmallDownloads(self._calls, batch, progress, ours).run())

        batches = [small[start : start + BATCH] for small in by_bucket.values() for start in range(0, len(small), BATCH)]
        run_parallel([job(batch) for batch in batches], workers=BATCHES_AT_ONCE, cancel=token)
        super().download_many(others, progress=progress, cancel=token)

    def upload(self, source: Path, key: str, *, progress: Progress = ignore_progress, cancel: Cancel | None = None) -> Entry:
        """See Storage."""
        return Upload(self._calls, key, progress, cancel or Cancel()).file(source)

    def put_stream(
        self, stream: Readable, key: str, *, size: int | None = None, progress: Progress = ignore_progress, cancel: Cancel | None = None
    ) -> Entry:
        """See Storage."""
        return Upload(self._calls, key, progress, cancel or Cancel()).stream(stream, size)

    def delete(self, keys: Iterable[str]) -> None:
        """See Storage."""
        by_bucket: dict[str, list[str]] = {}
        for key in keys:
            bucket, _, inner = key.partition("/")
            by_bucket.setdefault(bucket, []).append(inner)
        cancel = Cancel()
        for bucket, inner_keys in by_bucket.items():
            batches = [[key] for key in inner_keys if _NOT_XML.search(key)]
            fit = [key for key in inner_keys if not _NOT_XML.search(key)]
            batches += [fit[start : start + 1000] for start in range(0, len(fit), 1000)]
            for batch in batches:
                # The defaults bind the values of this turn of the loop, which mypy does not follow.
                with_retries(lambda bucket=bucket, batch=batch: self._delete(bucket, batch, cancel), cancel=cancel)  # type: ignore[misc]

    def _delete(self, bucket: str, keys: Sequence[str], cancel: Cancel) -> None:
        if len(keys) > 1:
            self._calls.delete_batch(bucket, keys, cancel=cancel)
            return
        with suppress(SourceMissingError), self._calls.call("DELETE", f"{bucket}/{keys[0]}", cancel=cancel) as reply:
            reply.read()

    @contextmanager
    def open_read(self, key: str, *, offset: int = 0, cancel: Cancel | None = None) -> Iterator[Readable]:
        """See Storage. A cut is mended by asking for the rest."""
        with Download(self._calls, key, ignore_progress, cancel or Cancel()).reader(offset) as reader:
            yield reader

    def sign(self, key: str, method: str = "GET", *, expires_s: int = 3600) -> str | None:
        """See Storage."""
        return self._calls.presign(method, key, expires_s=expires_s)

    def start_multipart(self, key: str) -> str:
        """See MultipartStorage."""
        require_object_key(self.uri(key), key)
        cancel = Cancel()
        return with_retries(lambda: self._calls.start_multipart(key, cancel=cancel), cancel=cancel)[0]

    def sign_part(self, key: str, upload_id: str, number: int, *, expires_s: int = 3600) -> str:
        """See MultipartStorage."""
        url = self._calls.presign("PUT", key, {"partNumber": str(number), "uploadId": upload_id}, expires_s=expires_s)
        if url is None:
            raise StorageError(f"the storage {self.name!r} has no keys, so no URL can be signed")
        return url

    def sign_part_head(self, key: str, number: int, *, expires_s: int = 3600) -> str:
        """See MultipartStorage."""
        url = self._calls.presign("HEAD", key, {"partNumber": str(number)}, expires_s=expires_s)
        if url is None:
            raise StorageError(f"the storage {self.name!r} has no keys, so no URL can be signed")
        return url

    def complete_multipart(self, key: str, upload_id: str, etags: Sequence[str]) -> Entry:
        """See MultipartStorage."""
        cancel = Cancel()
        parts = [(etag, "") for etag in etags]
        with_retries(lambda: self._calls.complete_multipart(key, upload_id, parts, "", cancel=cancel), cancel=cancel)
        return self._head(key, cancel)[0]

    def abort_multipart(self, key: str, upload_id: str) -> None:
        """See MultipartStorage."""
        abort_multipart(self._calls, key, upload_id)

    def check(self, path: str = "") -> None:
        """See Storage."""
        bucket, cancel = path.partition("/")[0], Cancel()
        if bucket:
            with_retries(lambda: self._calls.list_page(bucket, "", "", recursive=False, cancel=cancel), cancel=cancel, tries=3)
        else:
            with_retries(lambda: self._calls.buckets(cancel=cancel), cancel=cancel, tries=3)

    def close(self) -> None:
        """See Storage."""
        self._calls.close()
