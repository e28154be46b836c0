"""From the tree of a workflow file to its template."""

from __future__ import annotations

import re

from scitq.model.template import params
from scitq.model.template.fields import NAME, Fields, article, words
from scitq.model.template.problems import Problems
from scitq.model.template.read_dimension import read_dimensions, read_each
from scitq.model.template.schema import DependsTemplate, InputTemplate, PoolTemplate, StepTemplate, Template
from scitq.model.template.text import Text, Words
from scitq.model.template.tree import Mapping, Node, Scalar, parse

_TOP = (
    "format", "name", "version", "description", "tag", "params", "vars", "iterate", "worker_pool", "workspace", "publish_root", "shell",
    "retry", "retry_on", "container", "env", "skip_if_exists", "task_spec", "maximum_workers", "steps",
)  # fmt: skip
_INHERITED = ("container", "shell", "retry", "skip_if_exists")
_STEP_TEXTS = (
    "container", "command", "shell", "entrypoint", "output", "publish", "retry", "when", "skip_if_exists", "accept_failure", "priority",
)  # fmt: skip
_STEP = (
    "name", "inputs", "resources", "outputs", "env", "vars", "depends", "each", "grouped", "grouped_by", "per_sample", "task_spec",
    "retry_on", "worker_pool", *_STEP_TEXTS,
)  # fmt: skip
_STEP_ALIASES = {"language": "shell", "resource": "resources", "input": "inputs", "retries": "retry"}
_TASK_SPEC = ("cpus", "mem", "disk", "gpus", "concurrency", "prefetch", "time_limit", "time_request")
_TASK_ALIASES = {"cpu": "cpus", "gpu": "gpus", "memory": "mem"}
_POOL = (
    "provider", "region", "flavor", "cpu", "mem", "disk", "gpu", "gpumem", "cost", "eviction", "filter", "max", "rounds", "concurrency",
    "prefetch", "timeout",
)  # fmt: skip
_POOL_ALIASES = {"cpus": "cpu", "max_recruited": "max", "max_workers": "max", "task_batches": "rounds"}
_REFERENCE = re.compile(r"([A-Za-z][\w-]*)(?:\.([A-Za-z][\w-]*))?")
MODULE_KEYS = ("import", "module", "requires")


def read(text: str, problems: Problems) -> Template | None:
    """The template that `text` writes; what is wrong goes into `problems`, None when nothing can be read at all."""
    root = parse(text)
    if not isinstance(root, Mapping):
        problems.add(root.line, f"a workflow file is a group of keys (name, steps, …), not {article(root)}")
        return None
    fields = Fields(problems, root, "a workflow", _TOP, {"language": "shell", "max_workers": "maximum_workers", "retries": "retry"})
    declared = fields.mapping("params")
    variables = fields.word_group("vars")
    return Template(
        name=fields.name(),
        line=fields.line_of("name"),
        description=fields.plain("description"),
        version=fields.plain("version"),
        tag=fields.words("tag"),
        params={} if declared is None else params.read(problems, declared),
        variables=variables,
        dimensions=read_dimensions(problems, fields.node("iterate")),
        steps=_read_steps(problems, fields),
        workspace=fields.words("workspace"),
        publish_root=fields.words("publish_root"),
        max_workers=fields.words("maximum_workers"),
    )


def _read_steps(problems: Problems, top: Fields) -> tuple[StepTemplate, ...]:
    if not top.has("steps"):
        problems.add(top.line, "a workflow needs steps")
        return ()
    steps: list[StepTemplate] = []
    for node in top.items("steps"):
        if not isinstance(node, Mapping):
            problems.add(node.line, f"a step is a group of keys (name, container, command, …), not {article(node)}")
            continue
        module = next((key for key in MODULE_KEYS if key in node.entries), None)
        if module:
            problems.add(node.key_lines[module], f"{module}: is not possible here; write the step itself into the file")
            continue
        step = _read_step(problems, node, top)
        first = next((other for other in steps if other.name == step.name and step.name), None)
        if first:
            problems.add(step.line, f"there are two steps named {step.name!r} (the first on line {first.line})")
        steps.append(step)
    if not steps and not problems.found:
        problems.add(top.line_of("steps"), "a workflow needs at least one step")
    return tuple(steps)


def _read_step(problems: Problems, node: Mapping, top: Fields) -> StepTemplate:
    what = "a step"
    named = node.entries.get("name")
    if isinstance(named, Scalar):
        what = f"the step {named.text}"
    fields = Fields(problems, node, what, _STEP, _STEP_ALIASES)
    name = fields.name()
    texts = {key: found for key in _STEP_TEXTS if (found := fields.words(key)) is not None}
    for key in _INHERITED:
        if key not in texts and (inherited := top.words(key)) is not None:
            texts[key] = inherited
    for key in ("container", "command"):
        if key not in texts:
            problems.add(node.line, f"{what} needs a {key}")
        elif isinstance(written := texts[key], Text) and not written.raw.strip():
            problems.add(texts[key].line, f"the {key} of {what} is empty")
    return StepTemplate(
        name=name,
        line=node.line,
        texts=texts,
        inputs=_read_inputs(problems, fields, "inputs"),
        resources=_read_inputs(problems, fields, "resources"),
        outputs=_read_outputs(problems, fields),
        env={**top.word_group("env"), **_checked_env(problems, fields)},
        variables=fields.word_group("vars"),
        depends=_read_depends(problems, fields),
        each=read_each(problems, fields.node("each")),
        grouped=_read_grouping(problems, fields),
        task_spec={**_read_task_spec(problems, top), **_read_task_spec(problems, fields)},
        retry_on=fields.word_list("retry_on") or top.word_list("retry_on"),
        pools=_read_pools(problems, fields, top),
    )


def _checked_env(problems: Problems, fields: Fields) -> dict[str, Words]:
    found = fields.word_group("env")
    for name, value in found.items():
        if not re.fullmatch(r"[A-Za-z_]\w*", name):
            problems.add(value.line, f"{name!r} can't be the name of an environment variable")
    return found


def _read_outputs(problems: Problems, fields: Fields) -> dict[str, Words]:
    found = fields.word_group("outputs")
    for name, value in found.items():
        if not NAME.fullmatch(name):
            problems.add(value.line, f"the output's name {name!r} must begin with a letter and hold letters, digits, _ and - only")
    return found


def _read_grouping(problems: Problems, fields: Fields) -> tuple[str, ...] | None:
    given = [key for key in ("grouped", "grouped_by", "per_sample") if fields.has(key)]
    if len(given) > 1:
        problems.add(fields.line_of(given[1]), f"{given[1]} can't stand beside {given[0]}")
    if fields.has("grouped_by"):
        return tuple(found.raw for found in fields.word_list("grouped_by") if isinstance(found, Text))
    return () if fields.flag("grouped") or not fields.flag("per_sample", default=True) else None


def _read_task_spec(problems: Problems, fields: Fields) -> dict[str, Words]:
    node = fields.mapping("task_spec")
    if node is None:
        return {}
    inner = Fields(problems, node, "task_spec", _TASK_SPEC, _TASK_ALIASES)
    return {key: found for key in _TASK_SPEC if (found := inner.words(key)) is not None}


def _read_pools(problems: Problems, fields: Fields, top: Fields) -> tuple[PoolTemplate, ...]:
    if _is_off(fields.node("worker_pool")):
        return ()
    base = _pools(problems, top)
    own = _pools(problems, fields)
    if len(base) == 1 and own:
        return tuple(PoolTemplate(pool.line, {**base[0].texts, **pool.texts}) for pool in own)
    return own or base


def _is_off(node: Node | None) -> bool:
    return isinstance(node, Scalar) and node.text.lower() in ("none", "false", "no")


def _pools(problems: Problems, fields: Fields) -> tuple[PoolTemplate, ...]:
    pools = []
    for node in fields.items("worker_pool"):
        if _is_off(node):
            continue
        if not isinstance(node, Mapping):
            problems.add(
                node.line, f"worker_pool takes a group of keys (provider, cpu, max, …), or a list of such groups, not {article(node)}"
            )
            continue
        inner = Fields(problems, node, "worker_pool", _POOL, _POOL_ALIASES)
        pools.append(PoolTemplate(node.line, {key: found for key in _POOL if (found := inner.words(key)) is not None}))
    return tuple(pools)


def _read_inputs(problems: Problems, fields: Fields, key: str) -> tuple[InputTemplate, ...]:
    found = []
    for node in fields.items(key):
        if isinstance(node, Mapping) and "cond" not in node.entries:
            inner = Fields(problems, node, key, ("from", "into", "per"))
            source = inner.words("from")
            if source is None:
                problems.add(node.line, f"an entry of {key} needs from: a URI, or STEP.OUTPUT")
                continue
            found.append(_input(source, inner.words("into"), _is_per_all(problems, inner)))
        elif (source := words(problems, node, key)) is not None:
            found.append(_input(source, None, False))
    return tuple(found)


def _input(source: Words, into: Words | None, is_per_all: bool) -> InputTemplate:
    match = _REFERENCE.fullmatch(source.raw.strip()) if isinstance(source, Text) else None
    if match is None:
        return InputTemplate(source, source.line, into, is_per_all)
    return InputTemplate(source, source.line, into, is_per_all, match[1], match[2])


def _is_per_all(problems: Problems, fields: Fields, default: str = "item") -> bool:
    per = fields.plain("per", default)
    if per not in ("item", "all"):
        problems.add(fields.line_of("per"), f"per: is item (the tasks of the same item) or all, not {per!r}")
    return per == "all"


def _read_depends(problems: Problems, fields: Fields) -> tuple[DependsTemplate, ...]:
    found = []
    for node in fields.items("depends"):
        if isinstance(node, Scalar):
            found.append(DependsTemplate(node.text, node.line))
        elif isinstance(node, Mapping):
            inner = Fields(problems, node, "depends", ("step", "per", "accept_failure"))
            if not inner.has("step"):
                problems.add(node.line, "an entry of depends needs a step")
            else:
                per_all = _is_per_all(problems, inner, "all")
                found.append(DependsTemplate(inner.plain("step"), node.line, per_all, inner.flag("accept_failure")))
        else:
            problems.add(node.line, "depends takes step names, or entries like {step: qc, per: item}")
    return tuple(found)
