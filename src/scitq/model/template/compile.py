"""From a workflow file, parameters and items to a plan."""

from __future__ import annotations

import shlex
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field

from scitq.errors import ScitqError, UsageError
from scitq.model.task import MOST_PRIORITY, MOST_RETRIES, TaskSpec
from scitq.model.template import check, iterate, numbers, params, read, recruiters
from scitq.model.template.condition import holds
from scitq.model.template.iterate import Sources, Unit
from scitq.model.template.plan import Plan, PlannedRecruiter, PlannedStep, PlannedTask
from scitq.model.template.problems import Problems, TemplateError, problem
from scitq.model.template.schema import InputTemplate, StepTemplate, Template
from scitq.model.template.text import Scope
from scitq.model.uri import Uri

MOST_TASKS = 1_000_000
MOST_DEPENDENCIES = 5_000_000
_UNSAFE = str.maketrans(dict.fromkeys('/\\|*?"<>:', "_"))


def load(text: str, file: str) -> Template:
    """The template in a workflow file, all that can be checked without parameters checked; TemplateError with every problem."""
    problems = Problems()
    template = None
    try:
        template = read.read(text, problems)
    except TemplateError as error:
        problems.take(error, 0)
    problems.raise_any(file)
    assert template is not None
    check.check(template, problems)
    problems.raise_any(file)
    return template


def name_of(template: Template, given: MappingOf[str, str], file: str) -> str:
    """The workflow's name: that of the file, a dot and its tag when it has one."""
    scope = Scope(_param_values(template, given))
    try:
        tag = template.tag.evaluate(scope).strip() if template.tag is not None else ""
    except TemplateError as error:
        raise TemplateError(error.problems, file) from None
    return f"{template.name}.{tag}" if tag else template.name


def _param_values(template: Template, given: MappingOf[str, str]) -> dict[str, str | int | float | bool | None]:
    return {f"params.{name}": value for name, value in params.resolve(template.params, given).items()}


def compile_plan(template: Template, given: MappingOf[str, str], name: str, sources: Sources, file: str) -> Plan:
    """The plan of a checked template.

    given: values of parameters as written on the command line. name: the workflow's.
    Raises UsageError for parameters, TemplateError with every problem for the rest.
    """
    values = _param_values(template, given)
    compiler = _Compiler(template, name, Scope({**values, "workflow": name}, template.variables), sources)
    try:
        return compiler.plan()
    except TemplateError as error:
        raise TemplateError(error.problems, file) from None


def _check_labels(step: StepTemplate, units: list[Unit]) -> None:
    """TemplateError when two tasks would have one name: the items `a.b` and `c` are joined as `a` and `b.c` are."""
    seen: dict[str, Unit] = {}
    for unit in units:
        other = seen.setdefault(unit.label, unit)
        if other is not unit:
            both = " and ".join(", ".join(f"{name} {value!r}" for name, value in each.coordinates.items()) for each in (other, unit))
            raise problem(step.line, f"two tasks would be named {step.name}.{unit.label}: those of {both}; rename an item")


@dataclass(slots=True)
class _Made:
    """What a step came to: its coordinates' names, its tasks' positions and places, by unit."""

    names: tuple[str, ...]
    units: list[tuple[Unit, int, str | None]] = field(default_factory=list)
    indexes: dict[tuple[str, ...], dict[tuple[str, ...], list[int]]] = field(default_factory=dict)

    def matching(self, coordinates: dict[str, str], is_per_all: bool) -> list[int]:
        """Numbers of the units that agree with `coordinates` in all names that both have."""
        common = () if is_per_all else tuple(name for name in self.names if name in coordinates)
        if common not in self.indexes:
            index: dict[tuple[str, ...], list[int]] = {}
            for number, (unit, _, _) in enumerate(self.units):
                index.setdefault(tuple(unit.coordinates[name] for name in common), []).append(number)
            self.indexes[common] = index
        return self.indexes[common].get(tuple(coordinates[name] for name in common), [])


class _Compiler:
    def __init__(self, template: Template, name: str, scope: Scope, sources: Sources) -> None:
        self.template = template
        self.name = name
        self.scope = scope
        self.sources = sources
        self.problems = Problems()
        self.tasks: list[PlannedTask] = []
        self.made: dict[str, _Made] = {}
        self.places: dict[str, str] = {}
        """The task to which each folder of the workspace and of publish_root belongs."""
        self.empty: dict[tuple[str, str], list[str]] = {}
        """By step and the step that it takes from: the tasks that get nothing, since all that they would take from was left out."""
        self.dependencies = 0

    def plan(self) -> Plan:
        units = self._units()
        steps: list[PlannedStep] = []
        found: list[PlannedRecruiter] = []
        for step in check.ordered(self.template):
            first = len(self.tasks)
            retries = 0
            try:
                retries = numbers.whole(step.texts, "retry", self.scope.with_variables(step.variables), most=MOST_RETRIES) or 0
            except TemplateError as error:
                self.problems.take(error, step.line)
            self._make_step(step, units)
            mine = self.tasks[first:]
            try:
                found += recruiters.plan(step, self.scope, mine)
            except TemplateError as error:
                self.problems.take(error, step.line)
            if mine:
                steps.append(PlannedStep(name=step.name, retries=retries, tasks=len(mine)))
        self.problems.raise_any("")
        most = (
            numbers.whole({"maximum_workers": self.template.max_workers}, "maximum_workers", self.scope)
            if self.template.max_workers
            else None
        )
        return Plan(
            name=self.name,
            description=self.template.description,
            max_workers=most,
            steps=tuple(steps),
            tasks=tuple(self.tasks),
            recruiters=tuple(found),
            notes=tuple(
                f"{len(tasks)} task{'s' if len(tasks) > 1 else ''} of {step} ({tasks[0]}{', …' if len(tasks) > 1 else ''}) will have nothing "
                f"from {other}, whose tasks for the same items are left out (when:)"
                for (step, other), tasks in self.empty.items()
            ),
        )

    def _units(self) -> list[Unit]:
        """All combinations of items; TemplateError at once, since nothing can be worked out without them."""
        units = [iterate.EMPTY]
        for dimension in self.template.dimensions:
            try:
                items = iterate.items_of(dimension, self.scope, self.sources)
            except TemplateError:
                raise
            except ScitqError as error:
                raise problem(dimension.line, str(error)) from None
            if len(units) * len(items) > MOST_TASKS:
                raise problem(dimension.line, f"more than {MOST_TASKS} combinations of items")
            units = list(iterate.product(units, dimension.name, items))
            self.scope = self.scope.with_values(iterate.all_names(dimension.name, (item.name for item in items)))
        return units

    def _make_step(self, step: StepTemplate, units: list[Unit]) -> None:
        """Add the tasks of one step; its first problem ends it, since the others would mostly be the same one again."""
        try:
            mine, scope = self._units_of(step, units)
            made = self.made[step.name] = _Made(tuple(mine[0].coordinates) if mine else ())
            _check_labels(step, mine)
            for unit in mine:
                self._make_task(step, unit, scope.with_variables(step.variables), made)
        except TemplateError as error:
            self.problems.take(error, step.line)
            self.made.setdefault(step.name, _Made(()))

    def _units_of(self, step: StepTemplate, units: list[Unit]) -> tuple[list[Unit], Scope]:
        scope = self.scope
        names = [dimension.name for dimension in self.template.dimensions]
        if step.grouped is not None:
            for name in step.grouped:
                if name not in units[0].coordinates:
                    raise problem(step.line, f"the step {step.name} is grouped by {name!r}, which the workflow does not go over")
            units = iterate.grouped(units, step.grouped, names)
        for dimension in step.each:
            items = iterate.items_of(dimension, scope, self.sources)
            units = list(iterate.product(units, dimension.name, items))
            scope = scope.with_values(iterate.all_names(dimension.name, (item.name for item in items)))
        if len(self.tasks) + len(units) > MOST_TASKS:
            raise problem(step.line, f"more than {MOST_TASKS} tasks")
        return units, scope

    def _make_task(self, step: StepTemplate, unit: Unit, scope: Scope, made: _Made) -> None:
        scope = scope.with_values({**unit.values, "item": unit.label, "step": step.name})
        if "when" in step.texts and not holds(step.texts["when"], scope):  # type: ignore[arg-type] # check.py: it is a Text
            return
        waits: dict[int, None] = {}
        inputs = self._gather(step, step.inputs, unit, scope, waits)
        resources = self._gather(step, step.resources, unit, scope, waits)
        after_any: dict[int, None] = {}
        accepts = numbers.flag(step.texts, "accept_failure", scope)
        for each in step.depends:
            target = after_any if each.accepts_failure else waits
            upstream = self.made[each.step]
            target.update(dict.fromkeys(upstream.units[number][1] for number in upstream.matching(unit.coordinates, each.is_per_all)))
        if accepts:
            after_any, waits = {**after_any, **waits}, {}
        self.dependencies += len(waits) + len(after_any)
        if self.dependencies > MOST_DEPENDENCIES:
            raise problem(step.line, f"more than {MOST_DEPENDENCIES} dependencies between tasks; put a grouped step between the two steps")
        output, publish = self._places(step, unit, scope)
        task = PlannedTask(
            step=step.name,
            item=unit.label,
            spec=self._spec(step, unit, scope, inputs, resources, output, publish),
            depends_on=tuple(position for position in waits if position not in after_any),
            after_any=tuple(after_any),
            retries=numbers.whole(step.texts, "retry", scope, most=MOST_RETRIES) or 0,
            priority=numbers.whole(step.texts, "priority", scope, least=-MOST_PRIORITY, most=MOST_PRIORITY) or 0,
            coordinates=unit.coordinates,
        )
        made.units.append((unit, len(self.tasks), publish or output))
        self.tasks.append(task)

    def _spec(
        self, step: StepTemplate, unit: Unit, scope: Scope, inputs: list[str], resources: list[str], output: str | None, publish: str | None
    ) -> TaskSpec:
        shell = numbers.text(step.texts, "shell", scope)
        command = step.texts["command"].evaluate(scope)
        container = step.texts["container"].evaluate(scope).strip()
        self._check_command(step, command, container, None if shell == "none" else shell)
        env = {name.upper(): str(value) for name, value in unit.coordinates.items()}
        env |= {name: words.evaluate(scope) for name, words in step.env.items()}
        skips = numbers.flag(step.texts, "skip_if_exists", scope)
        if skips and not (output or publish):
            raise problem(step.texts["skip_if_exists"].line, f"skip_if_exists looks for the output, and the step {step.name} keeps none")
        return TaskSpec(
            container=container,
            command=command,
            shell=None if shell == "none" else shell,
            entrypoint=numbers.text(step.texts, "entrypoint", scope),
            inputs=tuple(inputs),
            resources=tuple(resources),
            output=output,
            publish=publish,
            skip_if_exists=skips,
            env=env,
            cpus=numbers.number(step.task_spec, "cpus", scope),
            mem_gib=numbers.gibibytes(step.task_spec, "mem", scope),
            disk_gb=numbers.gigabytes(step.task_spec, "disk", scope),
            gpus=numbers.whole(step.task_spec, "gpus", scope),
            time_limit_s=numbers.seconds(step.task_spec, "time_limit", scope),
            time_request_s=numbers.seconds(step.task_spec, "time_request", scope),
            retry_on=tuple(words.evaluate(scope) for words in step.retry_on),
        )

    def _check_command(self, step: StepTemplate, command: str, container: str, shell: str | None) -> None:
        if not command.strip():
            raise problem(step.texts["command"].line, f"the command of the step {step.name} comes to nothing")
        if not container:
            raise problem(step.texts["container"].line, f"the container of the step {step.name} comes to nothing")
        if shell is not None:
            return
        line = step.texts["command"].line
        if len(command.strip().splitlines()) > 1:
            raise problem(line, f"the command of the step {step.name} has several lines, so it needs a shell: sh, bash, python, …")
        try:
            shlex.split(command)
        except ValueError as error:
            raise problem(
                line, f"the command of the step {step.name}: {error}".replace("No closing quotation", "a quote is not closed")
            ) from None

    def _places(self, step: StepTemplate, unit: Unit, scope: Scope) -> tuple[str | None, str | None]:
        """Where a task's output goes, and where it is published.

        A task that is skipped when its result exists has no place in the workspace when it is published: that place is
        another one for each workflow, so the result would never be complete.
        """
        publish = self._publish(step, unit, scope)
        output = numbers.text(step.texts, "output", scope)
        if output is not None:
            return self._folder(output, step.texts["output"].line), publish
        if self.template.workspace is None or (publish is not None and numbers.flag(step.texts, "skip_if_exists", scope)):
            return None, publish
        root = self._folder(self.template.workspace.evaluate(scope).strip(), self.template.workspace.line)
        return self._own_place(root, (self.name, step.name, unit.label), step), publish

    def _publish(self, step: StepTemplate, unit: Unit, scope: Scope) -> str | None:
        publish = numbers.text(step.texts, "publish", scope)
        if publish is None or publish.lower() == "false":
            return None
        line = step.texts["publish"].line
        if publish.lower() != "true":
            return self._folder(publish, line)
        if self.template.publish_root is None:
            raise problem(line, "publish: true needs a publish_root at the top of the file")
        root = self._folder(self.template.publish_root.evaluate(scope).strip(), self.template.publish_root.line)
        return self._own_place(root, (step.name, unit.label), step)

    def _own_place(self, root: str, parts: tuple[str, ...], step: StepTemplate) -> str:
        """A folder that no other task has: two that differ only in characters that are replaced would mix their files."""
        place = f"{root}{self._tail(parts)}"
        other = self.places.setdefault(place, ".".join(parts))
        if other != ".".join(parts):
            raise problem(step.line, f"{other} and {'.'.join(parts)} would both have the folder {place}; rename an item")
        return place

    @staticmethod
    def _tail(parts: tuple[str, ...]) -> str:
        return "".join(f"{part.translate(_UNSAFE).strip('.') or '_'}/" for part in parts if part)

    @staticmethod
    def _folder(text: str, line: int) -> str:
        try:
            return str(Uri.parse_output(text))
        except UsageError as error:
            raise problem(line, str(error)) from None

    def _gather(
        self, step: StepTemplate, entries: tuple[InputTemplate, ...], unit: Unit, scope: Scope, waits: dict[int, None]
    ) -> list[str]:
        found: dict[str, None] = {}
        for entry in entries:
            for uri in self._uris(step, entry, unit, scope, waits):
                try:
                    Uri.parse(uri)
                except UsageError as error:
                    raise problem(entry.line, str(error)) from None
                found[uri] = None
        return list(found)

    def _uris(self, step: StepTemplate, entry: InputTemplate, unit: Unit, scope: Scope, waits: dict[int, None]) -> list[str]:
        if entry.step is None:
            written = [line.strip() for line in entry.source.evaluate(scope).splitlines()]
            return [self._into(entry, uri, scope) for uri in written if uri]
        upstream = self.made.get(entry.step)
        if upstream is None:
            return [self._into(entry, uri, scope) for uri in self._files(step, entry, unit, scope)]
        found: list[str] = []
        numbers_found = upstream.matching(unit.coordinates, entry.is_per_all)
        if not numbers_found:
            self.empty.setdefault((step.name, entry.step), []).append(unit.label or step.name)
        for number in numbers_found:
            other, position, place = upstream.units[number]
            waits[position] = None
            inner = scope.with_values({**other.values, "item": other.label, "step": entry.step})
            target = next(each for each in self.template.steps if each.name == entry.step)
            pattern = target.outputs[entry.part].evaluate(inner) if entry.part else ""
            found += [self._into(entry, f"{place}{piece}", inner) for piece in ([""] if not pattern else pattern.split())]
        return found

    def _files(self, step: StepTemplate, entry: InputTemplate, unit: Unit, scope: Scope) -> list[str]:
        name = f"{entry.step}.{entry.part}"
        if scope.has(name):
            return [uri for uri in str(scope.get(name, entry.line) or "").split() if uri]
        files = unit.files.get((entry.step or "", entry.part or ""))
        if not files:
            raise problem(entry.line, f"{unit.label or step.name} has no files {name}")
        return list(files)

    @staticmethod
    def _into(entry: InputTemplate, uri: str, scope: Scope) -> str:
        if entry.into is None:
            return uri
        folder = entry.into.evaluate(scope).strip().strip("/")
        return f"{uri}|mv:{folder}" if folder else uri
