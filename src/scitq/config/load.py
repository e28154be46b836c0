"""Finding and reading scitq.yaml."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec
import yaml

from scitq.config.schema import Config
from scitq.errors import UsageError
from scitq.util import paths

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def default_file() -> Path:
    """The private configuration that `scitq serve` makes itself when it finds none."""
    return paths.data_folder() / "scitq.yaml"


def find(given: str | None = None) -> Path | None:
    """The file to use, in the order of contract SRV-1: given, $SCITQ_CONFIG, the user's, the site's; None when there is none.

    A file that was named and is absent is a UsageError.
    """
    named = given or os.environ.get("SCITQ_CONFIG")
    if named:
        if not Path(named).is_file():
            raise UsageError(f"there is no configuration file {named}")
        return Path(named)
    candidates = [paths.config_folder() / "scitq.yaml", Path("/etc/scitq.yaml"), Path("/etc/scitq/scitq.yaml")]
    return next((path for path in candidates if path.is_file()), None)


def _replace_variables(value: Any, where: str) -> Any:  # noqa: ANN401 - plain YAML data
    if isinstance(value, str):

        def lookup(match: re.Match[str]) -> str:
            found = os.environ.get(match[1])
            if found is None:
                raise UsageError(f"{where}: the environment variable {match[1]} is not set")
            return found

        return _VARIABLE.sub(lookup, value)
    if isinstance(value, dict):
        return {key: _replace_variables(inner, where) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replace_variables(inner, where) for inner in value]
    return value


def read(path: Path) -> Config:
    """The configuration in `path`; UsageError with file, line and key for what is wrong in it."""
    try:
        plain = yaml.safe_load(path.read_text()) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: can't be read: {error}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: no valid YAML: {error}") from None
    try:
        return msgspec.convert(_replace_variables(plain, str(path)), Config)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}") from None
