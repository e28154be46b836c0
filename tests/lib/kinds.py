"""All declared kinds of messages."""

from __future__ import annotations

import importlib
import pkgutil

from scitq.protocol import messages, registry


def declared() -> list[registry.MessageKind]:
    """Every request, by name, once all modules have declared theirs."""
    for module in pkgutil.iter_modules(messages.__path__):
        importlib.import_module(f"{messages.__name__}.{module.name}")
    return registry.all_kinds()
