"""What the URIs of a task must fulfil at its creation (contract RES-1, OUT-5, URI-2 to MV-6)."""

from __future__ import annotations

from collections.abc import Callable, Collection

from scitq.errors import UsageError
from scitq.model.task import TaskSpec
from scitq.model.uri import Uri

MOST_URIS = 100_000
"""Inputs and resources of one task; a folder or a pattern counts once."""


def check_uris(spec: TaskSpec, known_schemes: Collection[str]) -> None:
    """Raise UsageError for the first URI of `spec` that can't be meant: bad form, unknown action, unknown storage.

    known_schemes: the entries of scitq.yaml's `rclone` section and the built-in schemes.
    """
    if len(spec.inputs) + len(spec.resources) > MOST_URIS:
        raise UsageError(f"a task may have {MOST_URIS} inputs and resources; name a folder or use a pattern instead")
    for option, texts in (("--resource", spec.resources), ("--input", spec.inputs)):
        for text in texts:
            _check(option, text, Uri.parse, known_schemes)
    for option, output in (("--output", spec.output), ("--publish", spec.publish)):
        if output is not None:
            _check(option, output, Uri.parse_output, known_schemes)
    if spec.skip_if_exists and spec.output is None and spec.publish is None:
        raise UsageError("--skip-if-exists looks for a completed result in the output, so it needs --output or --publish")


def _check(option: str, text: str, parse: Callable[[str], Uri], known_schemes: Collection[str]) -> None:
    try:
        uri = parse(text)
    except UsageError as error:
        raise UsageError(f"{option}: {error.message}") from None
    if uri.scheme not in known_schemes:
        raise UsageError(f"{option} {text!r}: no storage is named {uri.scheme!r}; known are {', '.join(sorted(known_schemes))}")
