"""Which function handles which message; what has no declaration and no handler is refused."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any, TypeVar

from scitq.broker import handlers
from scitq.broker.context import Ctx, Later, Park, Reading
from scitq.protocol.registry import Reply, Request

M = TypeVar("M", bound=Request)
Handler = Callable[[Ctx, Any], "Reply | Park | Later[Any]"]
Reader = Callable[[Reading, Any], "Reply | Park"]

_handlers: dict[type[Request], Handler] = {}
_periodic: list[tuple[float, Callable[[Ctx], None]]] = []
_readers: dict[type[Request], Reader] = {}


def handles(message: type[M]) -> Callable[[Callable[[Ctx, M], Any]], Callable[[Ctx, M], Any]]:
    """Declare the function that handles `message` in the loop, inside the transaction; it must not do slow things.

    It returns the reply, Park, or Later.
    """

    def declare(function: Callable[[Ctx, M], Any]) -> Callable[[Ctx, M], Any]:
        _handlers[message] = function
        return function

    return declare


def reads(message: type[M]) -> Callable[[Callable[[Reading, M], Any]], Callable[[Reading, M], Any]]:
    """Declare the function that answers `message` in a reading thread; it sees what is committed. Returns the reply, or Park."""

    def declare(function: Callable[[Reading, M], Any]) -> Callable[[Reading, M], Any]:
        _readers[message] = function
        return function

    return declare


def every(period_s: float) -> Callable[[Callable[[Ctx], None]], Callable[[Ctx], None]]:
    """Declare a function that the loop calls every so many seconds, in a transaction, as nobody in particular."""

    def declare(function: Callable[[Ctx], None]) -> Callable[[Ctx], None]:
        _periodic.append((period_s, function))
        return function

    return declare


def periodic() -> list[tuple[float, Callable[[Ctx], None]]]:
    """All functions declared by `every`."""
    return list(_periodic)


def load() -> None:
    """Import every module of handlers, so that they declare themselves."""
    for module in pkgutil.iter_modules(handlers.__path__):
        importlib.import_module(f"{handlers.__name__}.{module.name}")


def handler(message: type[Request]) -> Handler | None:
    """The function for the loop, or None."""
    return _handlers.get(message)


def reader(message: type[Request]) -> Reader | None:
    """The function for a reading thread, or None."""
    return _readers.get(message)
