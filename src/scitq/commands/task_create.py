"""`scitq task create` (contract, section 3; batches: docs/batches.md)."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from scitq.commands import arguments, task_fields, waiting
from scitq.commands.context import Context
from scitq.commands.parsing import Parser
from scitq.commands.progress import Progress
from scitq.commands.task_fields import Values
from scitq.errors import EXIT_OK, NotFoundError, ScitqError, UsageError, from_code

if TYPE_CHECKING:
    from scitq.commands.task_build import Array
    from scitq.model.task import NewTask, TaskSpec
    from scitq.protocol.messages.task import TasksCreated

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

MOST_TASKS = 5_000
MOST_BYTES = 16 * 1024 * 1024
"""Tasks and bytes of specs in one request."""


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
    for name in ("array", "each_line", "max_running", "max_fails"):
        if getattr(options, name) is None:
            setattr(options, name, getattr(said, name))
    return {"shell": task_sources.script_shell(text)} | task_fields.from_flags(said) | values | {"command": text}


def _array_of(options: argparse.Namespace) -> Array | None:
    from scitq.commands import task_build, task_sources

    for name in ("array", "each_line"):
        if getattr(options, name) == "":
            raise UsageError(f"--{name.replace('_', '-')} is empty")
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


Batch = tuple[list["TaskSpec"], list["NewTask"]]


def batches(pairs: Iterator[tuple[TaskSpec, NewTask]]) -> Iterator[Batch]:
    """Specs and tasks in pieces of at most 5,000 tasks and about 16 MiB; tasks that share a spec object go on sharing it."""
    import msgspec

    specs: list[TaskSpec] = []
    tasks: list[NewTask] = []
    positions: dict[int, int] = {}
    size = 0
    for spec, task in pairs:
        if len(tasks) >= MOST_TASKS or size >= MOST_BYTES:
            yield specs, tasks
            specs, tasks, positions, size = [], [], {}, 0
        position = positions.get(id(spec))
        if position is None:
            position = positions[id(spec)] = len(specs)
            specs.append(spec)
            size += len(spec.command) + sum(map(len, spec.inputs)) + sum(map(len, spec.resources)) + 200
        tasks.append(task if task.spec == position else msgspec.structs.replace(task, spec=position))
        size += 100
    if tasks:
        yield specs, tasks


class _Made:
    """What all requests of one command have created."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.existing: list[int] = []
        self.array_id: int | None = None
        self.notes: list[str] = []

    def add(self, answer: TasksCreated) -> None:
        """Take the answer to one request."""
        self.existing += [answer.ids[position] for position in answer.existing]
        self.ids += answer.ids
        self.array_id = answer.array_id if answer.array_id is not None else self.array_id
        self.notes += [note for note in answer.notes if note not in self.notes]


def _send(context: Context, pieces: Iterator[Batch], total: int, array: Array | None) -> _Made:
    from scitq.protocol.messages.task import TaskCreate, TasksCreated

    made = _Made()
    bar = Progress("creating", is_wanted=not context.out.is_quiet and total > MOST_TASKS)
    try:
        for specs, tasks in pieces:
            message = TaskCreate(
                specs=specs,
                tasks=tasks,
                is_array=array is not None and made.array_id is None,
                array_id=made.array_id,
                array_most_running=array.most_running if array is not None and made.array_id is None else None,
                array_max_fails=context.options.max_fails if array is not None and made.array_id is None else None,
                is_dry_run=context.options.dry_run,
            )
            made.add(context.api().call(message, TasksCreated, waits_s=120))
            bar.show(len(made.ids), total)
    except ScitqError as error:
        if made.ids:
            told = f"{len(made.ids)} of {total} tasks were created before this ({made.ids[0]} to {made.ids[-1]}): {error.message}"
            raise from_code(error.code, told) from None
        raise
    finally:
        bar.end()
    return made


def _last_id(context: Context) -> int | None:
    try:
        return context.task_ids(["last"])[-1]
    except (NotFoundError, IndexError):
        return None


def run(context: Context) -> int:
    """Check, create, print the ids, and wait when asked to."""
    from scitq.commands import task_build, task_sources

    options = context.options
    if options.timeout is not None and not options.wait:
        raise UsageError("--timeout is for --wait")
    values = _with_script(context)
    last_id = functools.cache(lambda: _last_id(context))
    array = _array_of(options)
    pairs: Iterator[tuple[TaskSpec, NewTask]]
    if options.from_file:
        if array is not None:
            raise UsageError("--from-file has a task on each line; don't give --array or --each-line beside it")
        specs, tasks = task_sources.json_lines(options.from_file, values, last_id)
        pairs, total = ((specs[task.spec], task) for task in tasks), len(tasks)
    else:
        spec = task_build.spec_of(values)
        task = task_build.task_of(values, last_id)
        if array is None:
            pairs, total = iter([(spec, task)]), 1
        else:
            pairs, total = task_build.elements_of(array, spec, task), len(array.indices)
    if options.dry_run:
        from scitq.commands import dry_run

        return dry_run.show(context, [(piece, _send(context, iter([piece]), total, array).notes) for piece in batches(pairs)])
    made = _send(context, batches(pairs), total, array)
    for note in made.notes:
        context.note(note)
    if context.out.is_json:
        context.out.json({"ids": made.ids, "existing": made.existing, "array_id": made.array_id, "notes": made.notes})
    else:
        context.out.ids(made.ids)
    if not options.wait:
        return EXIT_OK
    sys.stdout.flush()
    context.out.is_json = False
    return waiting.wait(context, waiting.ranges_of_ids(made.ids), timeout_s=options.timeout)
