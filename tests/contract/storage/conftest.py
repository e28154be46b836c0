"""Every storage that the suite runs over, opened as scitq opens it, each with a place of its own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from scitq.storage.base import Storage
from scitq.storage.registry import Storages

BACKENDS = ["local", "s3", "s3-by-rclone", "azurite", "gcs", "webdav"]


@dataclass(frozen=True, slots=True)
class Place:
    """A storage and a folder in it (its key, with the ending slash) that this test owns."""

    kind: str
    storages: Storages
    storage: Storage
    base: str

    def uri(self, name: str) -> str:
        return f"{self.storage.name}://{self.base}{name}"


@pytest.fixture(scope="session")
def opened(request, tmp_path_factory) -> Iterator[dict]:
    cache: dict = {}
    yield cache
    for storages, _bucket in cache.values():
        storages.close()


def _open(kind: str, request, tmp_path_factory) -> tuple[Storages, str]:
    bucket = f"b-{uuid.uuid4().hex[:10]}"
    match kind:
        case "local":
            settings = {"type": "local", "root": str(tmp_path_factory.mktemp("local"))}
        case "s3":
            service = request.getfixturevalue("s3_service")
            settings, bucket = service.rclone(), "ready"  # a bucket of its own would take many of SeaweedFS's volumes
        case "s3-by-rclone":
            service = request.getfixturevalue("s3_service")
            settings, bucket = service.rclone() | {"chunk_size": "6Mi"}, "ready"
        case "azurite":
            settings = request.getfixturevalue("azurite_service").rclone()
        case "gcs":
            settings = request.getfixturevalue("gcs_service").rclone()
        case "webdav":
            settings = request.getfixturevalue("webdav_service").rclone()
    storages = Storages({"My-store_1.x": settings})
    if kind in {"azurite", "gcs"}:
        storages.get("My-store_1.x").make_bucket(bucket)
    return storages, bucket


@pytest.fixture(params=BACKENDS)
def place(request, opened, tmp_path_factory) -> Place:
    kind = request.param
    if kind not in opened:
        opened[kind] = _open(kind, request, tmp_path_factory)
    storages, bucket = opened[kind]
    return Place(kind, storages, storages.get("My-store_1.x"), f"{bucket}/{uuid.uuid4().hex[:8]}/")
