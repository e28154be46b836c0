"""`scitq workflow run`: a workflow from a file (docs/workflows.md)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from scitq.commands import arguments
from scitq.commands.context import Context
from scitq.commands.render import Column
from scitq.errors import EXIT_OK, ScitqError, UsageError
from scitq.util.units import counted

if TYPE_CHECKING:
    from scitq.client.workflow_maker import Made
    from scitq.model.template.plan import Plan
    from scitq.model.template.schema import Template

EPILOG = """examples:
  scitq workflow run map.yaml --param reads=s3://bucket/raw/ --dry-run
  scitq workflow run map.yaml --param reads=s3://bucket/raw/ --wait
  scitq workflow run map.yaml --param reads=s3://bucket/raw/ --continue    adds new samples, retries what failed
  scitq workflow run map.yaml --params                                     the parameters of the file
A value that begins with @ is read from that file: --param samples=@list.txt (write \\@ for an @).
The file is checked wholly before anything is made. How to write one: docs/workflows.md."""

_TASKS = (
    Column("task", lambda task: task.name),
    Column("container", lambda task: task.spec.container),
    Column("command", lambda task: task.spec.command),
    Column("inputs", lambda task: " ".join(task.spec.inputs)),
    Column("output", lambda task: task.spec.publish or task.spec.output or ""),
)
_PARAMS = (
    Column("parameter", lambda param: param.name),
    Column("type", lambda param: f"{param.kind}: {'|'.join(param.choices)}" if param.choices else param.kind),
    Column("default", lambda param: "(required)" if param.is_required else "" if param.default is None else str(param.default)),
    Column("help", lambda param: param.help),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file, its parameters, and what to do with it."""
    add = parser.add_argument
    add("file", metavar="FILE", help="the workflow file, in YAML; - for standard input")
    add("--param", metavar="NAME=VALUE", dest="params_given", action="append", type=arguments.pair, help="the value of a parameter")
    add("--name", metavar="NAME", help="the workflow's name (default: the one in the file, with its tag)")
    add("--dry-run", action="store_true", help="print the tasks and make nothing")
    add("--continue", dest="goes_on", action="store_true", help="go on with the workflow of this name: add what is new, retry what failed")
    add("--no-recruiters", action="store_true", help="make no recruiters; the tasks wait for workers that are there")
    add("--wait", action="store_true", help="wait until the workflow is over; the exit status says how it went")
    add("--timeout", metavar="TIME", type=arguments.duration, help="with --wait: give up after TIME, as 90s or 2h (default: never)")
    add("--params", dest="shows_params", action="store_true", help="show the parameters of the file, and nothing else")


class _Sources:
    """The user's files, and storages through the server."""

    def __init__(self, context: Context, folder: Path) -> None:
        self._context = context
        self._folder = folder

    def read_text(self, path: str) -> str:
        """A file beside the workflow file, or by its absolute path."""
        return _read(self._folder / path)

    def list_uri(self, uri: str) -> list[str]:
        """All files there, as the server sees them."""
        from scitq.protocol.messages.file import FileFind, FileRows

        found = self._context.api().call(FileFind(uri=uri), FileRows, waits_s=120.0)
        if found.is_cut:
            raise UsageError(f"{uri} has more files than can be listed at once; name a smaller part of it")
        return [row.uri for row in found.rows]


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise _no_text(str(path), error) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} can't be read: {getattr(error, 'strerror', None) or error}") from None


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise _no_text("standard input", error) from None


def _no_text(what: str, error: UnicodeDecodeError) -> UsageError:
    line = error.object.count(b"\n", 0, error.start) + 1
    return UsageError(f"{what}:{line}: no UTF-8 text: {error.reason}")


def _given(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise UsageError(f"the parameter {name} is given twice")
        if value.startswith("@"):
            found[name] = _read(Path(value[1:]))
        else:
            found[name] = value[1:] if value.startswith("\\@") else value
    return found


def run(context: Context) -> int:
    """Check, then make; or show what would be made."""
    from scitq.model.template.compile import compile_plan, load, name_of

    options = context.options
    if options.timeout is not None and not options.wait:
        raise UsageError("--timeout says how long to wait, so it needs --wait")
    path = Path(options.file)
    text = _read_stdin() if options.file == "-" else _read(path)
    template = load(text, options.file)
    if options.shows_params:
        return _show_params(context, template)
    given = _given(options.params_given or [])
    name = name_of(template, given, options.file) if options.name is None else options.name
    plan = compile_plan(template, given, name, _Sources(context, path.parent), options.file)
    _check(plan, template, options.file)
    for note in plan.notes:
        context.note(note)
    if options.dry_run:
        return _show_plan(context, plan)
    return _make(context, plan, text)


def _check(plan: Plan, template: Template, file: str) -> None:
    """What the server will ask of each task, so that it is told before anything is made."""
    from scitq.broker.checks import check_name, check_spec, check_task
    from scitq.commands.task_build import AnyScheme
    from scitq.model.task import NewTask
    from scitq.model.template.problems import Problem, TemplateError

    check_name(plan.name, "workflow")
    lines = {step.name: step.line for step in template.steps}
    found: dict[str, Problem] = {}
    for task in plan.tasks:
        try:
            check_spec(task.spec, AnyScheme())
            check_task(NewTask(name=task.name), 0, 1)
        except UsageError as error:
            found.setdefault(task.step, Problem(lines[task.step], f"the task {task.name}: {error}"))
    if found:
        raise TemplateError(list(found.values()), file)


def _show_params(context: Context, template: Template) -> int:
    params = list(template.params.values())
    if context.out.is_json:
        names = ("name", "kind", "default", "is_required", "choices", "help", "least", "most")
        context.out.json([{name: getattr(param, name) for name in names} for param in params])
    elif context.out.is_quiet:
        context.out.ids(param.name for param in params)
    else:
        context.out.table([[column.cell(param) for column in _PARAMS] for param in params], _PARAMS)
    return EXIT_OK


def _show_plan(context: Context, plan: Plan) -> int:
    import msgspec

    out = context.out
    if out.is_json:
        found = msgspec.to_builtins(plan)
        for task, planned in zip(found["tasks"], plan.tasks, strict=True):
            task["name"] = planned.name
            task["depends_on"] = [plan.tasks[position].name for position in planned.depends_on]
            task["after_any"] = [plan.tasks[position].name for position in planned.after_any]
        out.json(found)
    elif out.is_quiet:
        out.ids(task.name for task in plan.tasks)
    else:
        out.table([[column.cell(task) for column in _TASKS] for task in plan.tasks], _TASKS)
        for each in plan.recruiters:
            context.note(f"step {each.step} would recruit workers: {each.filter or 'any flavor'}")
        context.note(f"{counted(len(plan.tasks), 'task')} in {counted(len(plan.steps), 'step')}; nothing was made")
    return EXIT_OK


def _make(context: Context, plan: Plan, text: str) -> int:
    from scitq.client.workflow_maker import make

    options = context.options
    made = make(context.api(), plan, text, goes_on=options.goes_on, with_recruiters=not options.no_recruiters)
    _report(context, made)
    if not options.wait:
        return EXIT_OK
    from scitq.commands.workflow_wait import wait

    try:
        return wait(context, made.id, None, options.timeout, is_silent=True)
    except KeyboardInterrupt:
        context.note(f"the workflow goes on without you; scitq workflow wait --id {made.id} waits again")
        raise
    except ScitqError as error:
        context.note(f"the workflow {made.id} was made, but: {error}")
        raise


def _report(context: Context, made: Made) -> None:
    if context.out.is_json:
        context.out.json(made)
        return
    context.out.text(str(made.id))
    parts = [f"{counted(len(made.created), 'task')} created"]
    if made.retried:
        parts.append(f"{len(made.retried)} retried")
    if made.busy:
        context.note(
            f"with a worker, with the inputs of before: {', '.join(map(str, made.busy[:20]))}; run this again when they have ended"
        )
    if made.kept:
        parts.append(f"{made.kept} left as they were")
    if made.recruiters:
        parts.append(counted(made.recruiters, "recruiter"))
    context.note(f"workflow {made.id} ({made.name}): {', '.join(parts)}")
