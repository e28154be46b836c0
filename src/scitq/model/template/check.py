"""What can be checked before parameters and items are known: every name, every reference between steps, cycles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter

from scitq.model.template import iterate
from scitq.model.template.condition import names as condition_names
from scitq.model.template.fields import near
from scitq.model.template.problems import Problems, TemplateError
from scitq.model.template.schema import Dimension, InputTemplate, StepTemplate, Template
from scitq.model.template.text import Text, Words

_ALWAYS = ("workflow", "step", "item")


class _Names:
    """What may stand in braces in one place."""

    def __init__(self, template: Template, known: Iterable[str], open_names: Iterable[str], step: StepTemplate | None) -> None:
        self.template = template
        self.step = step
        self.known = {*known, *template.variables, *_ALWAYS}
        self.known |= {f"params.{name}" for name in template.params}
        self.open = set(open_names)
        """Names of tables and file lists: whatever comes after their dot is known later."""

    def check(self, problems: Problems, name: str, line: int) -> None:
        root, _, rest = name.partition(".")
        if name in self.known or (rest and root in self.open):
            return
        if root == "params":
            declared = list(self.template.params)
            problems.add(line, f"there is no parameter {rest!r}" + (near(rest, declared) or "; declare it under params"))
        elif name.lower() in {dimension.name.lower() for dimension in self.template.dimensions} and self.step:
            problems.add(
                line, f"{{{name}}} has no single value in the step {self.step.name}, which is grouped; {{{name.upper()}S}} names all"
            )
        else:
            problems.add(
                line, f"{{{name}}} is no name known here{near(name, sorted(self.known))}; for the text itself write {{{{{name}}}}}"
            )


def _dimension_names(dimensions: Iterable[Dimension]) -> Iterator[str]:
    for dimension in dimensions:
        yield from (dimension.name, dimension.name.upper())
        key = dimension.texts.get("key")
        if isinstance(key, Text):
            for column in key.raw.split(","):
                yield from (column.strip(), column.strip().upper())


def _collective(dimensions: Iterable[Dimension]) -> Iterator[str]:
    for dimension in dimensions:
        yield from iterate.all_names(dimension.name, ())


def names_of(template: Template, step: StepTemplate) -> _Names:
    """What the texts of a step may name."""
    dimensions = [*template.dimensions, *step.each]
    known = [*_collective(dimensions), *step.variables, *_dimension_names(step.each)]
    open_names = [each.name for each in step.each]
    if step.grouped is None:
        known += _dimension_names(template.dimensions)
        open_names += [each.name for each in template.dimensions]
    else:
        for name in step.grouped:
            known += (name, name.upper())
        if step.grouped:
            open_names += [each.name for each in template.dimensions]
    return _Names(template, known, open_names, step)


def check(template: Template, problems: Problems) -> None:
    """Note every unknown name and reference."""
    general = _Names(template, _collective(template.dimensions), (), None)
    params_only = _Names(template, (), (), None)
    everything = _Names(
        template,
        [*_collective(template.dimensions), *_dimension_names(template.dimensions)],
        [each.name for each in template.dimensions],
        None,
    )
    _check_words(
        problems, params_only, [template.tag, template.max_workers, *(w for each in template.dimensions for w in iterate.words_of(each))]
    )
    _check_words(problems, everything, [template.workspace, template.publish_root, *template.variables.values()])
    steps = {step.name: step for step in template.steps}
    for step in template.steps:
        names = names_of(template, step)
        texts = [words for key, words in step.texts.items() if key != "when"]
        inputs = [words for each in (*step.inputs, *step.resources) for words in (each.source,) if each.step is None]
        _check_words(problems, names, [*texts, *inputs, *step.outputs.values(), *step.env.values(), *step.task_spec.values()])
        _check_words(problems, names, [*step.retry_on, *step.variables.values()])
        _check_words(problems, general, [words for pool in step.pools for words in pool.texts.values()])
        _check_words(problems, params_only, [words for each in step.each for words in iterate.words_of(each)])
        when = step.texts.get("when")
        if isinstance(when, Text):
            _check_pairs(problems, names, when)
        elif when is not None:
            problems.add(when.line, "when: takes a condition itself, not cond:")
        _check_references(problems, template, steps, step)
    _check_cycles(problems, template)


def _check_words(problems: Problems, names: _Names, texts: Iterable[Words | None]) -> None:
    for words in texts:
        if words is None:
            continue
        try:
            for name, line in words.expressions():
                names.check(problems, name, line)
        except TemplateError as error:
            problems.take(error, words.line)


def _check_pairs(problems: Problems, names: _Names, when: Text) -> None:
    try:
        for name, line in condition_names(when):
            names.check(problems, name, line)
    except TemplateError as error:
        problems.take(error, when.line)


def _check_references(problems: Problems, template: Template, steps: dict[str, StepTemplate], step: StepTemplate) -> None:
    dimensions = {dimension.name: dimension for dimension in (*template.dimensions, *step.each)}
    for entry in (*step.inputs, *step.resources):
        if entry.step is None:
            continue
        if entry.step in dimensions:
            _check_group(problems, dimensions[entry.step], entry)
            continue
        target = steps.get(entry.step)
        if target is None:
            known = [*steps, *dimensions]
            problems.add(entry.line, f"{entry.step!r} is neither a step nor a URI (storage://bucket/path){near(entry.step, known)}")
        elif target is step:
            problems.add(entry.line, f"the step {step.name} can't take its own output")
        elif entry.part and entry.part not in target.outputs:
            known = list(target.outputs)
            hint = near(entry.part, known) or (f"; it has {', '.join(known)}" if known else "; give it one under outputs")
            problems.add(entry.line, f"the step {target.name} has no output {entry.part!r}{hint}")
        elif not _has_place(template, target):
            problems.add(
                entry.line,
                f"what the step {target.name} makes is kept nowhere: give it an output (or a publish), or the workflow a workspace",
            )
    for each in step.depends:
        if each.step not in steps:
            problems.add(each.line, f"there is no step {each.step!r}{near(each.step, list(steps))}")
        elif each.step == step.name:
            problems.add(each.line, f"the step {step.name} can't wait for itself")
    names = set(_dimension_names(template.dimensions))
    has_tables = any(dimension.source == "tsv" for dimension in template.dimensions)
    for name in step.grouped or ():
        if name not in names and not has_tables:
            problems.add(step.line, f"the step {step.name} is grouped by {name!r}, which the workflow does not go over")


def _has_place(template: Template, step: StepTemplate) -> bool:
    return "output" in step.texts or "publish" in step.texts or template.workspace is not None


def _check_group(problems: Problems, dimension: Dimension, entry: InputTemplate) -> None:
    known: list[str] = []
    match dimension.source:
        case "uri":
            known = [*dimension.groups, "files"]
        case "lines":
            item = dimension.texts.get("item")
            known = [item.raw] if isinstance(item, Text) else []
        case "tsv":
            return
    if entry.part is None and dimension.source == "uri":
        problems.add(entry.line, f"{entry.step} alone is no input; write {entry.step}.{known[0]}")
    elif entry.part not in known:
        problems.add(entry.line, f"{dimension.name} has no files named {entry.part!r}" + (f"; it has {', '.join(known)}" if known else ""))


def needs(template: Template, step: StepTemplate) -> dict[str, int]:
    """The steps that a step comes after, each with a line that says so."""
    names = {each.name for each in template.steps}
    found = {entry.step: entry.line for entry in (*step.inputs, *step.resources) if entry.step in names and entry.step}
    return {**found, **{each.step: each.line for each in step.depends if each.step in names}}


def _check_cycles(problems: Problems, template: Template) -> None:
    try:
        ordered(template)
    except CycleError as error:
        cycle = list(error.args[1])[::-1]
        step = next(each for each in template.steps if each.name == cycle[0])
        if len(set(cycle)) > 1:
            problems.add(step.line, f"steps wait for each other in a circle: {' after '.join(cycle)}")


def ordered(template: Template) -> list[StepTemplate]:
    """The steps, each after those that it needs, else in the order of the file; raises CycleError."""
    sorter: TopologicalSorter[str] = TopologicalSorter()
    for step in template.steps:
        sorter.add(step.name, *needs(template, step))
    sorter.prepare()
    steps = {step.name: step for step in template.steps}
    found: list[StepTemplate] = []
    ready: list[str] = []
    order = {step.name: number for number, step in enumerate(template.steps)}
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=order.__getitem__)
        name = ready.pop(0)
        found.append(steps[name])
        sorter.done(name)
    return found
