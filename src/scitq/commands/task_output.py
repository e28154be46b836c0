"""`scitq task output` (contract, section 12)."""

from __future__ import annotations

import argparse
import sys

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.commands.logframes import NOTE, STDERR, STDOUT, Frames
from scitq.errors import EXIT_OK, UsageError

EPILOG = """Both streams go to stdout, in the order in which the task wrote them, with scitq's own notes (why it failed before running).
With --stdout the task's stdout alone comes, byte for byte; so does its stderr with --stderr. Notes go to stderr then."""


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


def _print_one(context: Context, task_id: int) -> None:
    from scitq.client.api import WAIT_PATIENCE_S, WAIT_PIECE_S
    from scitq.protocol.messages.task import TaskLog, TaskOutput

    options = context.options
    is_one = options.stdout != options.stderr
    streams = (STDOUT,) if options.stdout and is_one else (STDERR,) if options.stderr and is_one else (STDOUT, STDERR, NOTE)
    frames = Frames()
    offset, tail = 0, options.tail
    wait_s = 0.0
    kept: bytearray | None = None if options.tail is None else bytearray()
    while True:
        asked = TaskOutput(id=task_id, offset=offset, at_most_s=wait_s, tail_lines=tail, streams=streams)
        answer = context.api().call(asked, TaskLog, waits_s=wait_s, patience_s=WAIT_PATIENCE_S if options.follow else None)
        for stream, data in frames.feed(answer.data):
            if _is_shown(options, stream) and kept is not None:
                kept += data
            elif _is_shown(options, stream):
                sys.stdout.buffer.write(data)
            elif stream == NOTE and not context.out.is_quiet:
                sys.stderr.buffer.write(data)
        is_all = answer.next_offset >= answer.size
        if kept is not None and is_all:
            sys.stdout.buffer.write(last_lines(bytes(kept), options.tail))
            kept = None
        sys.stdout.buffer.flush()
        offset, tail = answer.next_offset, None
        if is_all and (answer.is_ended or not options.follow):
            return
        wait_s = WAIT_PIECE_S if is_all else 0.0


def run(context: Context) -> int:
    """Print; the exit status does not depend on the task's."""
    ids = context.task_ids(context.options.ids)
    if context.out.is_json:
        raise UsageError("the output of a task is bytes, not JSON; leave --json out")
    for task_id in ids:
        if len(ids) > 1 and not context.out.is_quiet:
            print(f"==> task {task_id} <==", file=sys.stderr, flush=True)
        _print_one(context, task_id)
    return EXIT_OK
