"""The order `check`: can this worker reach a URI? (`scitq file check --worker-id`)"""

from __future__ import annotations

from typing import Any

from scitq.agent.data import open_storages
from scitq.agent.folders import DataContext
from scitq.errors import ScitqError
from scitq.model.uri import Uri
from scitq.storage.check import check_uri


def check(text: str, context: DataContext) -> dict[str, Any]:
    """Plain data: is_reachable, detail, files, bytes."""
    try:
        uri = Uri.parse(text, may_be_root=True)
    except ScitqError as error:
        return {"is_reachable": False, "detail": error.message}
    return check_uri(open_storages(context), uri)
