"""The specs of one request, checked, and made ready to be stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from scitq.broker import checks
from scitq.broker.store.creation import SpecRow
from scitq.broker.store.tasks import spec_body
from scitq.errors import UsageError
from scitq.model import needs
from scitq.model.needs import Needs
from scitq.model.task import TaskSpec

_AT_ONCE = 100
"""Specs looked at together; when one of them is out of the ordinary, each is looked at alone."""


class Sheet:
    """Specs by position. What many of them have in common is looked at once, for a request brings thousands."""

    def __init__(self, specs: Sequence[TaskSpec], schemes: frozenset[str]) -> None:
        """UsageError, with the position, for the first spec that could never run; `schemes` are the known storages."""
        self.specs = specs
        self.needs: list[Needs] = []
        self.rows: list[SpecRow] = []
        forms: dict[Any, tuple[Needs, bytes]] = {}
        try:
            for first in range(0, len(specs), _AT_ONCE):
                some = specs[first : first + _AT_ONCE]
                is_plain = checks.are_plain(some, schemes)
                for spec, common in zip(some, map(checks.common_fields, some), strict=True):
                    asked, body = forms.get(common) or forms.setdefault(common, _form(spec))
                    if not is_plain:
                        checks.check_own(spec, schemes)
                    if spec.inputs or spec.resources or spec.output or spec.publish or spec.env or spec.requests:
                        body = spec_body(spec)
                        if spec.requests:
                            asked = needs.of_spec(spec)
                    self.needs.append(asked)
                    self.rows.append((spec.container, spec.command, body))
        except UsageError as error:
            error.position = len(self.rows)
            raise


def _form(spec: TaskSpec) -> tuple[Needs, bytes]:
    """What specs with these common fields ask, and how they are stored when they have nothing else."""
    checks.check_common(spec)
    plain = msgspec.structs.replace(spec, inputs=(), resources=(), output=None, publish=None, env={}, requests={})
    return needs.of_spec(plain), spec_body(plain)
