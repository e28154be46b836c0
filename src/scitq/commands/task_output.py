"""`scitq task output` (contract, section 12)."""

from __future__ import annotations

import argparse
import sys

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.commands.logframes import NOTE, STDERR, STDOUT, Frames
from scitq.errors import EXIT_OK
from scitq.util import clock

EPILOG = """Both streams go to stdout as they came (what was written to both within a millisecond may change places),
with scitq's own notes (why it failed before running).
With --stdout the task's stdout alone comes, byte for byte; so does its stderr with --stderr. Notes go to stderr then.
With --json each task is an object with its stdout, its stderr and the notes as texts."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which task, which streams, from where and until when."""
    add = parser.add_argument
    arguments.add_task_ids(parser, "print the output of")
    add("--follow", action="store_true", help="stay until the task ends, however it ends")
    add("--stdout", action="store_true", help="only its stdout, byte for byte")
    add("--stderr", action="store_true", help="only its stderr, byte for byte")
    add("--tail", metavar="N", type=arguments.natural, help="only the last N lines (and with --follow, what comes after)")


def _is_shown(options: argparse.Namespace, stream: int) -> bool:
    if options.stdout and not options.stderr:
        return stream == STDOUT
    if options.stderr and not options.stdout:
        return stream == STDERR
    return True


def last_lines(data: bytes, count: int) -> bytes:
    """The last `count` lines of `data`; a last one without its newline counts."""
    end = len(data) - 1 if data.endswith(b"\n") else len(data)
    for _ in range(count):
        end = data.rfind(b"\n", 0, max(0, end))
        if end < 0:
            return data
    return data[end + 1 :] if count else b""


class _Sink:
    """Where the pieces go: to stdout as they come, or kept for --tail and for JSON."""

    def __init__(self, context: Context) -> None:
        self._context = context
        options = context.options
        self._is_json = context.out.is_json
        self._tail: int | None = options.tail
        self._kept: bytearray | None = None if options.tail is None or self._is_json else bytearray()
        self.parts: dict[int, bytearray] = {STDOUT: bytearray(), STDERR: bytearray(), NOTE: bytearray()}

    def take(self, stream: int, data: bytes) -> None:
        """One piece of one stream."""
        if self._is_json:
            self.parts[stream] += data
        elif not _is_shown(self._context.options, stream):
            if stream == NOTE and not self._context.out.is_quiet:
                sys.stderr.buffer.write(data)
        elif self._kept is not None:
            self._kept += data
        else:
            sys.stdout.buffer.write(data)

    def caught_up(self) -> None:
        """All that there was is taken: what --tail held back is shown, and what follows comes at once."""
        if self._kept is not None:
            sys.stdout.buffer.write(last_lines(bytes(self._kept), self._tail or 0))
            self._kept = None

    def as_json(self, task_id: int) -> dict[str, object]:
        """Each stream as text; bytes that are no UTF-8 are replaced."""

        def text(stream: int) -> str:
            data = bytes(self.parts[stream])
            return (data if self._tail is None else last_lines(data, self._tail)).decode("utf-8", "replace")

        return {"id": task_id, "stdout": text(STDOUT), "stderr": text(STDERR), "notes": text(NOTE)}


def print_one(context: Context, task_id: int, deadline_s: float | None = None) -> _Sink:
    """Print what there is of one task's output, or with --follow all of it until its end (or the deadline, in monotonic seconds)."""
    from scitq.client.api import WAIT_PATIENCE_S, WAIT_PIECE_S
    from scitq.protocol.messages.task import TaskLog, TaskOutput

    options = context.options
    is_one = options.stdout != options.stderr
    streams = (STDOUT,) if options.stdout and is_one else (STDERR,) if options.stderr and is_one else (STDOUT, STDERR, NOTE)
    frames, sink = Frames(), _Sink(context)
    offset, tail = 0, None if context.out.is_json else options.tail
    wait_s = 0.0
    while True:
        asked = TaskOutput(id=task_id, offset=offset, at_most_s=wait_s, tail_lines=tail, streams=streams)
        answer = context.api().call(asked, TaskLog, waits_s=wait_s, patience_s=WAIT_PATIENCE_S if options.follow else None)
        for stream, data in frames.feed(answer.data):
            sink.take(stream, data)
        is_all = answer.next_offset >= answer.size
        if is_all:
            sink.caught_up()
        sys.stdout.buffer.flush()
        offset, tail = answer.next_offset, None
        left_s = WAIT_PIECE_S if deadline_s is None else min(WAIT_PIECE_S, deadline_s - clock.monotonic_s())
        if (is_all and (answer.is_ended or not options.follow)) or left_s <= 0:
            return sink
        wait_s = left_s if is_all else 0.0


def run(context: Context) -> int:
    """Print; the exit status does not depend on the task's."""
    ids = context.task_ids(context.options.ids)
    found = []
    for task_id in ids:
        if len(ids) > 1 and not context.out.is_quiet and not context.out.is_json:
            print(f"==> task {task_id} <==", file=sys.stderr, flush=True)
        sink = print_one(context, task_id)
        if context.out.is_json:
            found.append(sink.as_json(task_id))
    if context.out.is_json:
        context.out.json(found)
    return EXIT_OK
