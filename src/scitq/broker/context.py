"""What a handler is given: the transaction, the time, who asks, and the broker's memory, changed only after success."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import apsw

from scitq.errors import ForbiddenError
from scitq.protocol.messages.agent import AgentOrders, Order
from scitq.protocol.registry import Reply, Role
from scitq.protocol.tokens import Identity
from scitq.util.clock import UnixMs

if TYPE_CHECKING:
    from scitq.broker.state import Broker

T = TypeVar("T")


@dataclass(slots=True)
class Ctx:
    """One request's view. Pushes, notices and `after` take effect only when the request succeeded and is on disk
    (`after`: when it succeeded; it changes the memory that the scheduler reads before the commit).
    """

    tx: apsw.Connection
    now_ms: UnixMs
    broker: Broker
    who: Identity
    peer: bytes = b""
    parked_key: str = ""
    """The key of the Park with which this request answered before; empty at its first run."""
    until_s: float = 0.0
    pushes: list[tuple[bytes, Reply]] = field(default_factory=list)
    laters: list[Later[Any]] = field(default_factory=list)
    topics: set[str] = field(default_factory=set)
    effects: list[Callable[[], None]] = field(default_factory=list)

    def push(self, worker_id: int, message: Reply) -> None:
        """Send `message` to a worker's agent, if it is connected."""
        session = self.broker.sessions.get(worker_id)
        if session is not None:
            self.pushes.append((session.peer, message))

    def background(self, later: Later[Any]) -> None:
        """Start slow work once this request is on disk; nobody waits for its result but `then`."""
        self.laters.append(later)

    def push_order(self, worker_id: int, order: Order) -> None:
        """Send an order to a worker's agent, if it is connected."""
        self.push(worker_id, AgentOrders(orders=[order]))

    def notify(self, topic: str) -> None:
        """Wake what is parked on `topic`."""
        self.topics.add(topic)

    def after(self, effect: Callable[[], None]) -> None:
        """Change the broker's memory once this request has succeeded; `effect` must not fail."""
        self.effects.append(effect)

    @property
    def is_admin(self) -> bool:
        """Whether an administrator asks."""
        return self.who.role is Role.ADMIN

    def must_own(self, owner_id: int | None, what: str) -> None:
        """ForbiddenError unless the caller owns `what` or is an administrator (contract, section 0, item 9)."""
        if not self.is_admin and self.who.user_id != owner_id:
            raise ForbiddenError(f"{what} belongs to somebody else; only the owner or an administrator may do that")


@dataclass(frozen=True, slots=True)
class Park:
    """A handler's answer "not yet": it is run again when a topic is notified, at the latest at `until_s`.

    `until_s`: monotonic seconds; a request whose time is over is run with the same deadline and must then answer.
    `at_least_s`: not before so many seconds after this run, for what many events wake. `key`: given back at the next run.
    """

    topics: frozenset[str]
    until_s: float
    at_least_s: float = 0.0
    key: str = ""


@dataclass(frozen=True, slots=True)
class Later(Generic[T]):
    """A handler's answer "I have slow work": `work` is run in a thread, without the database; then `then(ctx, result)` in the loop.

    What `work` raises is the request's error, or goes to `or_else(ctx, error)` when that is given; an error that a function
    returns, in place of raising it, is the answer too, but what the function wrote stays.
    """

    work: Callable[[], T]
    then: Callable[[Ctx, T], Any]
    or_else: Callable[[Ctx, Exception], Any] | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reading handler is given, in a thread of its own with a read-only connection."""

    db: apsw.Connection
    now_ms: UnixMs
    broker: Broker
    who: Identity
    arrived_s: float
    """Monotonic seconds at which the request came; the start of every wait."""
    now_s: float
