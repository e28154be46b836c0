"""Waiting for tasks: parked at the server in pieces, a progress line on a terminal, silence in cron."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from scitq.commands.context import Context
from scitq.commands.progress import Progress
from scitq.commands.selection import Range
from scitq.errors import EXIT_OK, EXIT_TASK_FAILED, EXIT_TIMED_OUT
from scitq.util import clock

if TYPE_CHECKING:
    from scitq.protocol.messages.task import TaskWaited

_ENDED = "SFX"


MOST_RANGES = 1000
"""Ranges of ids in one wait: each costs the server some queries whenever a task ends."""


def wait(context: Context, ranges: Sequence[Range], *, is_any: bool = False, timeout_s: float | None = None) -> int:
    """Wait until all (or any) of the tasks have ended: exit 0 when all that ended succeeded, 10 when one did not, 124 at the timeout."""
    from scitq.protocol.messages.task import TaskWaited

    deadline = None if timeout_s is None else clock.monotonic_s() + timeout_s
    answers: list[TaskWaited] = []
    # Many ranges are waited for one portion after the other: all are over when the last portion is.
    for first in range(0, len(ranges), len(ranges) if is_any else MOST_RANGES):
        answer = _wait(context, ranges if is_any else ranges[first : first + MOST_RANGES], is_any, deadline)
        if answer is None:
            return EXIT_TIMED_OUT
        answers.append(answer)
    counts = {letter: sum(answer.counts.get(letter, 0) for answer in answers) for answer in answers for letter in answer.counts}
    failed = [one for answer in answers for one in answer.failed]
    if context.out.is_json:
        ended = [one for answer in answers for one in answer.ended]
        successors = {old: new for answer in answers for old, new in answer.successors.items()}
        context.out.json(TaskWaited(is_over=True, counts=counts, failed=failed, ended=ended, successors=successors))
    if failed or any(counts.get(letter) for letter in "FX"):
        shown = ", ".join(map(str, failed[:20])) + (", …" if len(failed) > 20 else "")
        context.note(f"not succeeded: {shown or _told(counts)}")
        return EXIT_TASK_FAILED
    return EXIT_OK


def _wait(context: Context, ranges: Sequence[Range], is_any: bool, deadline: float | None) -> TaskWaited | None:
    """The answer that says that it is over; None at the deadline (in monotonic seconds)."""
    from scitq.client.api import WAIT_PATIENCE_S, WAIT_PIECE_S
    from scitq.protocol.messages.task import TaskWait, TaskWaited

    api = context.api()
    bar = Progress("waiting", is_wanted=not context.out.is_quiet)
    counts: dict[str, int] = {}
    try:
        while True:
            left = WAIT_PIECE_S if deadline is None else min(WAIT_PIECE_S, deadline - clock.monotonic_s())
            if left <= 0 and counts:
                context.note(f"timed out; {_told(counts)}")
                return None
            left = 0.0 if bar.is_on and not counts else max(0.0, left)  # so that a terminal shows something at once
            asked = TaskWait(ranges=list(ranges), is_any=is_any, at_most_s=left, unless_counts=counts if bar.is_on else {})
            patience_s = WAIT_PATIENCE_S if deadline is None else min(WAIT_PATIENCE_S, max(5.0, deadline - clock.monotonic_s()))
            answer = api.call(asked, TaskWaited, waits_s=left, patience_s=patience_s)
            counts = answer.counts or {"?": 0}
            total = sum(counts.values())
            bar.show(sum(counts.get(letter, 0) for letter in _ENDED), total, _told(counts))
            if answer.is_over:
                return answer
    finally:
        bar.end()


def _told(counts: dict[str, int]) -> str:
    return " ".join(f"{letter}:{count}" for letter, count in counts.items() if count)
