"""How long a recruiter waits after a failed deployment, and for how long a flavor is set aside; pure (docs/fleet.md, "Failures")."""

from __future__ import annotations

import msgspec

_FIRST_WAIT_MS = 5_000
_MOST_WAIT_MS = 15 * 60_000
_QUOTA_MS = 60_000
_UNUSABLE_MS = 3_600_000
_MOST_ASIDE_MS = 3_600_000
_FAILURES_BEFORE_ASIDE = 3


class Setback(msgspec.Struct, frozen=True, kw_only=True):
    """What a failure means: the recruiter's next try, and until when the flavor is not used (None: it may be)."""

    next_try_ms: int
    aside_until_ms: int | None


def after_failure(code: str, failures: int, now_ms: int) -> Setback:
    """code: of the error (quota, flavor_unusable or another); failures: of this flavor since its last success, this one included.

    One failure by chance only delays; a flavor that fails again and again, is over its quota or not to be had at all is
    set aside, so that the next cheapest is taken.
    """
    wait_ms = min(_MOST_WAIT_MS, _FIRST_WAIT_MS * 2 ** min(failures - 1, 10))
    match code:
        case "quota":
            return Setback(next_try_ms=now_ms, aside_until_ms=now_ms + min(_MOST_ASIDE_MS, _QUOTA_MS * 2 ** min(failures - 1, 10)))
        case "flavor_unusable":
            return Setback(next_try_ms=now_ms, aside_until_ms=now_ms + _UNUSABLE_MS)
        case _ if failures >= _FAILURES_BEFORE_ASIDE:
            longer = min(_MOST_ASIDE_MS, _QUOTA_MS * 2 ** min(failures - _FAILURES_BEFORE_ASIDE, 10))
            return Setback(next_try_ms=now_ms + wait_ms, aside_until_ms=now_ms + longer)
        case _:
            return Setback(next_try_ms=now_ms + wait_ms, aside_until_ms=None)
