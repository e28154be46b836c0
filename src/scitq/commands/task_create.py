"""`scitq task create` (contract, section 3; batches: docs/batches.md)."""

from __future__ import annotations

import argparse
import functools
import sys
from typing import TYPE_CHECKING

from scitq.commands import arguments, selection, task_fields, waiting
from scitq.commands.context import Context
from scitq.commands.parsing import Parser
from scitq.commands.task_fields import Values
from scitq.errors import EXIT_OK, NotFoundError, UsageError

if TYPE_CHECKING:
    from scitq.commands.task_build import Array
    from scitq.commands.task_send import Batch, Made
    from scitq.commands.task_sources import Lines

EPILOG = """examples:
  scitq task create --container alpine --command 'echo "hello world"'
  scitq task create --container alpine --shell sh --command 'echo "hello world"|tr "h" "H"'
  scitq task create --container bare --command 'process {index}' --array '1-1000%20'
  scitq task create --script job.sh --each-line samples.txt --wait
  scitq task create --from-file tasks.jsonl
  scitq task create --container alpine --command true --depends-on last

In an array, {index} and {item} in name, command, input, resource, output and publish stand for the element; the task
finds them in $SCITQ_ARRAY_INDEX and $SCITQ_ITEM too. A script may hold lines such as `#SCITQ --cpus 4`; flags beat them.
A line of --from-file is a JSON object with the same names, such as {"container": "alpine", "command": "true", "cpus": 2};
flags say what a line does not. Prints the id, or one id a line."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The fields of a task, where several come from, and what to do besides."""
    task_fields.add_flags(parser)
    batch = parser.add_argument_group("several tasks")
    add = batch.add_argument
    add("--array", metavar="A-B[:STEP][%N]", help="one task for each index; %N: at most N at once")
    add("--each-line", metavar="FILE", help="one task for each line of a file, - for stdin; the line is {item}, its number {index}")
    add("--max-running", metavar="N", type=arguments.positive, help="at most N tasks of the array at once")
    add("--max-fails", metavar="N", type=arguments.positive, help="cancel the rest of the array when N of it have failed")
    add("--from-file", metavar="FILE", help="tasks as JSON lines, - for stdin; checked as a whole before any is created")
    add("--script", metavar="FILE", help="run this script, - for stdin; its first line names the shell, #SCITQ lines are flags")
    more = parser.add_argument_group("what to do besides")
    more.add_argument("--dry-run", action="store_true", help="create nothing; show what would run, and which workers fit")
    more.add_argument("--wait", action="store_true", help="wait for the end; exit 0 when all succeeded, 10 when one did not")
    more.add_argument("--timeout", metavar="TIME", type=arguments.duration, help="with --wait: give up (exit 124) after so long")


def _with_script(context: Context) -> Values:
    """What the flags say, and the script where they say nothing."""
    from scitq.commands import task_sources

    options = context.options
    values = task_fields.from_flags(options)
    if not options.script:
        return values
    if "command" in values or options.from_file:
        raise UsageError("--script is the command; don't give --command or --from-file beside it")
    text = task_sources.read_text(options.script)
    parser = Parser(context.command)
    add_arguments(parser)
    try:
        said = parser.parse(list(task_sources.script_words(text)))
    except UsageError as error:
        raise UsageError(f"{options.script}, #SCITQ lines: {error.message}") from None
    for name in ("from_file", "script", "dry_run"):
        if getattr(said, name):
            raise UsageError(f"{options.script}, #SCITQ lines: --{name.replace('_', '-')} is for the command line only")
    options.wait = options.wait or said.wait
    for name in ("array", "each_line", "max_running", "max_fails", "timeout"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(said, name))
    return {"shell": task_sources.script_shell(text)} | task_fields.from_flags(said) | values | {"command": text}


def _array_of(options: argparse.Namespace) -> Array | None:
    from scitq.commands import task_build, task_sources

    if options.array and options.each_line:
        raise UsageError("give --array or --each-line, not both")
    if options.each_line:
        lines = task_sources.items(options.each_line)
        return task_build.Array(range(1, len(lines) + 1), options.max_running, lines)
    if options.array:
        array = task_build.parse_array(options.array)
        if array.most_running is not None and options.max_running is not None:
            raise UsageError(f"--max-running {options.max_running} and %{array.most_running} in --array say the same thing; give one")
        return array._replace(most_running=array.most_running or options.max_running)
    if options.max_fails is not None or options.max_running is not None:
        raise UsageError("--max-fails and --max-running are for arrays; give --array or --each-line too")
    return None


def _last_id(context: Context) -> int | None:
    try:
        return context.task_ids(["last"])[-1]
    except (NotFoundError, IndexError):
        return None


def run(context: Context) -> int:
    """Check, create, print the ids, and wait when asked to."""
    from scitq.commands import task_build, task_send, task_sources

    options = context.options
    for name in ("array", "each_line", "from_file", "script"):
        if getattr(options, name) == "":
            raise UsageError(f"--{name.replace('_', '-')} is empty")
    values = _with_script(context)
    if options.timeout is not None and not options.wait:
        raise UsageError("--timeout is for --wait")
    last_id = functools.cache(lambda: _last_id(context))
    array = _array_of(options)
    if options.from_file is not None:
        if array is not None:
            raise UsageError("--from-file has a task on each line; don't give --array or --each-line beside it")
        return _from_file(context, task_sources.json_lines(options.from_file, values, last_id))
    spec = task_build.spec_of(values)
    task = task_build.task_of(values, last_id)
    if array is None:
        pieces, total = task_send.batches([(spec, task)]), 1
    else:
        pieces, total = task_send.batches(task_build.elements_of(array, spec, task)), len(array.indices)
    if options.dry_run:
        planned = list(pieces)
        task_send.send(context, planned, total, array, is_dry_run=True)
        return _show(context, planned)
    made = task_send.send(context, pieces, total, array)
    return _finish(context, made, made.ids)


def _from_file(context: Context, lines: Lines) -> int:
    from scitq.commands import task_send

    pieces = list(task_send.batches((lines.specs[task.spec], task) for task in lines.tasks))
    if len(pieces) > 1 or context.options.dry_run:
        task_send.check_whole(context, lines, lines.place)
    if context.options.dry_run:
        return _show(context, pieces)
    made = task_send.send(context, pieces, len(lines.tasks), None, lines.place)
    return _finish(context, made, [made.ids[position] for position in lines.positions])


def _show(context: Context, pieces: list[Batch]) -> int:
    from scitq.commands import dry_run

    return dry_run.show(context, pieces)


def _finish(context: Context, made: Made, ids: list[int]) -> int:
    """Print the ids, one for each line or element, and wait when asked to."""
    if context.out.is_json:
        context.out.json({"ids": ids, "existing": made.existing, "array_id": made.array_id})
    else:
        context.out.ids(ids)
    if not context.options.wait:
        return EXIT_OK
    sys.stdout.flush()
    context.out.is_json = False
    return waiting.wait(context, selection.merged([(one, one, 1) for one in ids]), timeout_s=context.options.timeout)
