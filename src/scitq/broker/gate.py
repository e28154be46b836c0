"""Who is asking: tokens to identities, and which roles may send what."""

from __future__ import annotations

import hmac

from scitq.broker.state import Broker
from scitq.errors import ForbiddenError, NotLoggedInError, ProtocolError
from scitq.protocol import tokens
from scitq.protocol.registry import MessageKind, Role
from scitq.protocol.tokens import Identity
from scitq.util.clock import UnixMs

NOBODY = Identity(0, "", Role.ANYONE, 0, "")
_MOST_KNOWN = 50_000


class Gate:
    """Checks tokens; genuine ones are remembered, since the same token comes with every message."""

    def __init__(self, broker: Broker) -> None:
        """Nothing remembered."""
        self._broker = broker
        self._known: dict[str, Identity] = {}

    def identify(self, token: str, now_ms: UnixMs) -> Identity:
        """Who holds the token; NotLoggedInError when it is forged, expired or revoked, or there is none."""
        if not token:
            raise NotLoggedInError("you are not logged in; type: export SCITQ_TOKEN=$(scitq login)")
        secrets = self._broker.secrets
        if secrets.worker_token and hmac.compare_digest(token.encode(), secrets.worker_token.encode()):
            return Identity(0, "worker", Role.WORKER, 0, "")
        identity = self._known.get(token)
        if identity is None:
            identity = tokens.verify(token, secrets.token_key, now_ms)
            if len(self._known) > _MOST_KNOWN:
                self._known.clear()
            self._known[token] = identity
        elif identity.expires_ms and identity.expires_ms <= now_ms:
            raise NotLoggedInError("the token has expired; log in again: scitq login")
        if identity.token_id not in self._broker.live_tokens:
            raise NotLoggedInError("the token was revoked; log in again: scitq login")
        return identity

    def admit(self, kind: MessageKind, token: str, now_ms: UnixMs) -> Identity:
        """The sender's identity, when it may send such a message; ForbiddenError when its role may not."""
        if Role.ANYONE in kind.roles:
            return self.identify(token, now_ms) if token and kind.kind == "ping" else NOBODY
        identity = self.identify(token, now_ms)
        if identity.role not in kind.roles:
            wanted = " or ".join(sorted(role.value for role in kind.roles))
            raise ForbiddenError(f"{kind.kind} is not for a {identity.role.value}; it takes the role {wanted}")
        return identity

    def admit_long(self, kind: MessageKind, token: str, now_ms: UnixMs) -> None:
        """Refuse a long message before it is looked into, when its sender may not send it, or needs no token for it."""
        if Role.ANYONE in kind.roles:
            raise ProtocolError(f"no {kind.kind} is as long as that")
        self.admit(kind, token, now_ms)
