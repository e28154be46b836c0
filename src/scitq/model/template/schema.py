"""A workflow file as it was read: still with its texts, before parameters and items are known."""

from __future__ import annotations

from dataclasses import dataclass, field

from scitq.model.template.text import Text, Value, Words

PARAM_TYPES = {
    "string": "string",
    "str": "string",
    "text": "string",
    "path": "string",
    "provider_region": "provider_region",
    "integer": "integer",
    "int": "integer",
    "float": "float",
    "boolean": "boolean",
    "bool": "boolean",
    "enum": "enum",
}
"""What `type:` may be, and what it means."""


@dataclass(frozen=True, slots=True)
class Param:
    """One declared parameter; `default` already of its type."""

    name: str
    kind: str
    line: int
    default: Value = None
    is_required: bool = False
    choices: tuple[str, ...] = ()
    help: str = ""
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Dimension:
    """What a workflow goes over: a named list, and where it comes from. `groups`: names of file patterns."""

    name: str
    source: str
    line: int
    values: tuple[Words, ...] | None = None
    texts: dict[str, Words] = field(default_factory=dict)
    """The other keys of the source: start, end, step, file, content, uri, key, sep, item, tag, group_by, pattern, match."""
    groups: dict[str, Words] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InputTemplate:
    """One entry of `inputs` or `resources`: a URI, a list of a dimension's files, or what another step made."""

    source: Words
    line: int
    into: Words | None = None
    is_per_all: bool = False
    step: str | None = None
    """The step or dimension that is referred to."""
    part: str | None = None
    """The named output or file group of it."""


@dataclass(frozen=True, slots=True)
class DependsTemplate:
    """An order between steps without data: `per` item or all."""

    step: str
    line: int
    is_per_all: bool = True
    accepts_failure: bool = False


@dataclass(frozen=True, slots=True)
class PoolTemplate:
    """One rank of `worker_pool`."""

    line: int
    texts: dict[str, Words] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StepTemplate:
    """One step; what it does not say itself was already taken from the top of the file."""

    name: str
    line: int
    texts: dict[str, Words]
    """container, command, shell, entrypoint, output, publish, retry, when, skip_if_exists, accept_failure, priority."""
    inputs: tuple[InputTemplate, ...] = ()
    resources: tuple[InputTemplate, ...] = ()
    outputs: dict[str, Words] = field(default_factory=dict)
    env: dict[str, Words] = field(default_factory=dict)
    variables: dict[str, Words] = field(default_factory=dict)
    depends: tuple[DependsTemplate, ...] = ()
    each: tuple[Dimension, ...] = ()
    grouped: tuple[str, ...] | None = None
    """None: one task for each item. Names: one for each of their values; empty: one in all."""
    task_spec: dict[str, Words] = field(default_factory=dict)
    retry_on: tuple[Words, ...] = ()
    pools: tuple[PoolTemplate, ...] = ()


@dataclass(frozen=True, slots=True)
class Template:
    """The whole file."""

    name: str
    line: int
    description: str = ""
    version: str = ""
    tag: Words | None = None
    params: dict[str, Param] = field(default_factory=dict)
    variables: dict[str, Words] = field(default_factory=dict)
    dimensions: tuple[Dimension, ...] = ()
    steps: tuple[StepTemplate, ...] = ()
    workspace: Words | None = None
    publish_root: Words | None = None
    max_workers: Words | None = None


EMPTY = Text("", 0)
