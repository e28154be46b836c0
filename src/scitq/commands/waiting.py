"""Waiting for tasks: parked at the server in pieces, a progress line on a terminal, silence in cron."""

from __future__ import annotations

from collections.abc import Sequence

from scitq.commands.context import Context
from scitq.commands.progress import Progress
from scitq.errors import EXIT_OK, EXIT_TASK_FAILED, EXIT_TIMED_OUT
from scitq.util import clock

_ENDED = "SFX"


def ranges_of_ids(ids: Sequence[int]) -> list[tuple[int, int, int]]:
    """Ascending ids as ranges, runs of neighbours joined."""
    found: list[tuple[int, int, int]] = []
    for one in sorted(set(ids)):
        if found and found[-1][1] == one - 1:
            found[-1] = (found[-1][0], one, 1)
        else:
            found.append((one, one, 1))
    return found


def wait(context: Context, ranges: Sequence[tuple[int, int, int]], *, is_any: bool = False, timeout_s: float | None = None) -> int:
    """Wait until all (or any) of the tasks have ended: exit 0 when all that ended succeeded, 10 when one did not, 124 at the timeout."""
    from scitq.client.api import WAIT_PATIENCE_S, WAIT_PIECE_S
    from scitq.protocol.messages.task import TaskWait, TaskWaited

    api = context.api()
    deadline = None if timeout_s is None else clock.monotonic_s() + timeout_s
    bar = Progress("waiting", is_wanted=not context.out.is_quiet)
    counts: dict[str, int] = {}
    try:
        while True:
            left = WAIT_PIECE_S if deadline is None else min(WAIT_PIECE_S, deadline - clock.monotonic_s())
            if left <= 0 and counts:
                context.note(f"timed out; {_told(counts)}")
                return EXIT_TIMED_OUT
            left = 0.0 if bar.is_on and not counts else max(0.0, left)  # so that a terminal shows something at once
            asked = TaskWait(ranges=list(ranges), is_any=is_any, at_most_s=left, unless_counts=counts if bar.is_on else {})
            patience_s = WAIT_PATIENCE_S if deadline is None else min(WAIT_PATIENCE_S, max(5.0, deadline - clock.monotonic_s()))
            answer = api.call(asked, TaskWaited, waits_s=left, patience_s=patience_s)
            counts = answer.counts or {"?": 0}
            total = sum(counts.values())
            bar.show(sum(counts.get(letter, 0) for letter in _ENDED), total, _told(counts))
            if answer.is_over:
                break
    finally:
        bar.end()
    has_failed = bool(answer.failed) or any(answer.counts.get(letter) for letter in "FX")
    if context.out.is_json:
        context.out.json(answer)
    if has_failed:
        shown = ", ".join(map(str, answer.failed[:20])) + (", …" if len(answer.failed) > 20 else "")
        context.note(f"not succeeded: {shown or _told(counts)}")
        return EXIT_TASK_FAILED
    return EXIT_OK


def _told(counts: dict[str, int]) -> str:
    return " ".join(f"{letter}:{count}" for letter, count in counts.items() if count)
