"""What the URIs of a task must fulfil at its creation (contract RES-1, OUT-5, URI-2 to MV-6)."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Sequence

from scitq.errors import UsageError
from scitq.model.task import TaskSpec
from scitq.model.uri import SCHEME, WEB_SCHEMES, Uri

MOST_URIS = 100_000
"""Inputs and resources of one task; a folder or a pattern counts once."""


def check_uris(spec: TaskSpec, known_schemes: frozenset[str]) -> None:
    """Raise UsageError for the first URI of `spec` that can't be meant: bad form, unknown action, unknown storage.

    known_schemes: the entries of scitq.yaml's `rclone` section and the built-in schemes.
    """
    if len(spec.inputs) + len(spec.resources) > MOST_URIS:
        raise UsageError(f"a task may have {MOST_URIS} inputs and resources; name a folder or use a pattern instead")
    if not are_plain_uris(spec.inputs + spec.resources, (spec.output, spec.publish), known_schemes):
        for option, texts in (("--resource", spec.resources), ("--input", spec.inputs)):
            for text in texts:
                _check(option, text, Uri.parse, known_schemes)
        for option, output in (("--output", spec.output), ("--publish", spec.publish)):
            if output is not None:
                _check(option, output, Uri.parse_output, known_schemes)
    if spec.skip_if_exists and spec.output is None and spec.publish is None:
        raise UsageError("--skip-if-exists looks for a completed result in the output, so it needs --output or --publish")


def are_plain_uris(sources: Sequence[str], targets: Iterable[str | None], known_schemes: frozenset[str]) -> bool:
    """Whether all inputs and resources, and all outputs that there are, have the form of most URIs, so that check_uris finds nothing.

    It takes a tenth of the time of parsing; a request brings up to a hundred thousand URIs. False proves nothing.
    """
    plain_sources, plain_targets = _plain_forms(known_schemes)
    outputs = [target for target in targets if target is not None]
    return (
        len(sources) <= MOST_URIS and _match(plain_sources, sources) and _match(plain_targets, outputs) and ".." not in "\0".join(outputs)
    )


def _match(form: re.Pattern[str], texts: Sequence[str]) -> bool:
    together = "\0".join(texts)
    return not texts or (together.count("\0") == len(texts) - 1 and form.fullmatch(together) is not None)


@functools.lru_cache(maxsize=16)
def _plain_forms(known_schemes: frozenset[str]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What most URIs look like, some of them with a NUL between: inputs, and outputs."""
    storages = [re.escape(name) for name in known_schemes - WEB_SCHEMES - {"file"} if name.isascii() and SCHEME.fullmatch(name)]
    web = sorted(known_schemes & WEB_SCHEMES)
    bucket, path, plain_path = r"[\x01-)+-.0-{}-\x7f]+", r"[\x01-{}-\x7f]*", r"[\x01-)+-{}-\x7f]*"
    outputs = [rf"(?:{'|'.join(storages)})://{bucket}(?:/{plain_path})?"] if storages else []
    inputs = [rf"(?:{'|'.join(storages)})://{bucket}(?:/{path})?"] if storages else []
    inputs += [rf"(?:{'|'.join(web)})://{bucket}(?:/{plain_path})?"] if web else []
    if "file" in known_schemes:
        inputs.append(rf"file:///{path}")
        outputs.append(rf"file:///{plain_path}")
    source = rf"(?:{'|'.join(inputs)})(?:\|(?:untar|gunzip|mv:[\w-]{{1,200}}(?:/[\w-]{{1,200}})*))*" if inputs else r"(?!)"
    target = rf"(?:{'|'.join(outputs)})" if outputs else r"(?!)"
    return re.compile(rf"{source}(?:\0{source})*", re.ASCII), re.compile(rf"{target}(?:\0{target})*", re.ASCII)


def _check(option: str, text: str, parse: Callable[[str], Uri], known_schemes: frozenset[str]) -> None:
    try:
        uri = parse(text)
    except UsageError as error:
        raise UsageError(f"{option}: {error.message}") from None
    if uri.scheme not in known_schemes:
        raise UsageError(f"{option} {text!r}: no storage is named {uri.scheme!r}; known are {', '.join(sorted(known_schemes))}")
