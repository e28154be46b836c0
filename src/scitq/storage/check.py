"""Whether a URI can be reached from this machine, and if not, why."""

from __future__ import annotations

from typing import Any

from scitq.errors import ScitqError
from scitq.model.uri import Uri
from scitq.storage.registry import Storages
from scitq.storage.resolve import resolve


def check_uri(storages: Storages, uri: Uri) -> dict[str, Any]:
    """Whether `uri` can be reached from here: is_reachable, detail, files and bytes (as fields of FileChecked)."""
    try:
        storage = storages.get(uri.scheme)
        storage.check(uri.path)
        if not uri.key:
            return {"is_reachable": True, "detail": "the storage answers and accepts the credentials"}
        sources = resolve(storage, uri)
    except ScitqError as error:
        return {"is_reachable": False, "detail": error.message}
    total = sum(max(source.size, 0) for source in sources)
    return {"is_reachable": True, "detail": "it is there and can be read", "files": len(sources), "bytes": total}
