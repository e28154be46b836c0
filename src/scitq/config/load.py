"""Finding and reading scitq.yaml (contract SRV-1)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import msgspec
import yaml

from scitq.config import passwords
from scitq.config.schema import Config
from scitq.errors import UsageError
from scitq.util import files, paths, units

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `(?:key in )?\$(?P<path>[^`]*)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `([^`]+)`")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_DURATIONS = {
    "scitq": ("token_ttl", "heartbeat", "worker_lost_after", "worker_offline_after"),
    "worker": ("idle_timeout", "never_worked_timeout", "offline_timeout", "installing_timeout", "keep_failed_uploads"),
}
_SIZES = {"scitq": ("max_task_log",), "worker": ("cache_size", "min_free_disk", "max_extract_size")}


def default_file() -> Path:
    """The private configuration that `scitq serve` makes itself when it finds none."""
    return paths.data_folder() / "scitq.yaml"


def user_file() -> Path:
    """Where a user's own configuration lies."""
    return paths.config_folder() / "scitq.yaml"


def find(given: str | None = None) -> Path | None:
    """The file to use, in the order of contract SRV-1: given, $SCITQ_CONFIG, the user's, the site's; None when there is none.

    A file that was named and is absent is a UsageError. One of the site that this user may not read is the server's own, and passed over.
    """
    named = given or os.environ.get("SCITQ_CONFIG")
    if named:
        if not Path(named).is_file():
            raise UsageError(f"there is no configuration file {named}")
        return Path(named)
    candidates = [user_file(), Path("/etc/scitq.yaml"), Path("/etc/scitq/scitq.yaml")]
    return next((path for path in candidates if path.is_file() and os.access(path, os.R_OK)), None)


def _line_of(node: yaml.Node | None, path: list[str]) -> int | None:
    """The line (from 1) of the deepest part of `path` that is in the document."""
    if node is None:
        return None
    line = node.start_mark.line + 1
    for word in path:
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, value) for key, value in node.value if key.value == word]
            if not pairs:
                break
            line, node = pairs[0][0].start_mark.line + 1, pairs[0][1]
        elif isinstance(node, yaml.SequenceNode) and word.isdigit() and int(word) < len(node.value):
            node = node.value[int(word)]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _path_of(text: str) -> list[str]:
    return [match[1] or match[2] for match in _STEP.finditer(text)]


class _Source:
    """The file being read, for messages that name file, line and key."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            text = file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UsageError(f"{file}: can't be read: {reason}") from None
        try:
            self.root = yaml.compose(text, Loader=yaml.SafeLoader)
            self.plain: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{file}, line {mark.line + 1}" if mark else str(file)
            raise UsageError(f"{where}: no valid YAML: {getattr(error, 'problem', None) or error}") from None
        self._refuse_doubles(self.root, set())

    def _refuse_doubles(self, node: yaml.Node | None, seen: set[int]) -> None:
        """A key that stands twice in one mapping is a mistake, of which YAML would take the last in silence."""
        if node is None or id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for inner in node.value:
                self._refuse_doubles(inner, seen)
        if isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, inner in node.value:
                line = key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode) and key.value != "<<" and lines.setdefault(key.value, line) != line:
                    raise UsageError(f"{self.file}, line {line}: {key.value}: given twice (first on line {lines[key.value]})")
                self._refuse_doubles(inner, seen)

    def error(self, path: list[str], what: str) -> UsageError:
        """The error `what` at the key `path`."""
        line = _line_of(self.root, path)
        where = f"{self.file}, line {line}" if line else str(self.file)
        key = ".".join(path)
        return UsageError(f"{where}: {key}: {what}" if key else f"{where}: {what}")

    def replace_variables(self, value: Any, path: list[str]) -> Any:  # noqa: ANN401 - plain YAML data
        """`value` with every ${VAR} replaced from the environment."""
        if isinstance(value, str):

            def lookup(match: re.Match[str]) -> str:
                found = os.environ.get(match[1])
                if found is None:
                    raise self.error(path, f"the environment variable {match[1]} is not set")
                return found

            return _VARIABLE.sub(lookup, value)
        if isinstance(value, dict):
            return {key: self.replace_variables(inner, [*path, str(key)]) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.replace_variables(inner, [*path, str(i)]) for i, inner in enumerate(value)]
        return value

    def translate(self, error: msgspec.ValidationError) -> UsageError:
        """msgspec's complaint with the line of the key."""
        match = _PLACE.match(str(error))
        what = match["what"] if match else str(error)
        path = _path_of(match["path"] or "") if match else []
        unknown = _UNKNOWN.search(what)
        if unknown:
            return self.error([*self._named(path), unknown[1]], "there is no such key (docs/configuration.md lists them all)")
        return self.error(self._named(path), what)

    def _named(self, path: list[str]) -> list[str]:
        """`path` with the names that msgspec leaves out (`...`): those of the first entries that it refuses."""
        named: list[str] = []
        found: Any = self.plain
        for word in path:
            entries = found if isinstance(found, dict) else {}
            named.append(word if word != "..." else next((str(key) for key in entries if self._is_refused(named, key, entries[key])), word))
            found = entries.get(named[-1])
        return named

    @staticmethod
    def _is_refused(path: list[str], key: object, value: object) -> bool:
        alone: Any = {key: value}
        for word in reversed(path):
            alone = {word: alone}
        try:
            msgspec.convert(alone, Config)
        except msgspec.ValidationError:
            return True
        return False


def _check(config: Config, source: _Source) -> None:
    server = config.scitq
    if not 0 <= server.port <= 65534:
        raise source.error(
            ["scitq", "port"], f"{server.port} is no port; use 1 to 65534 (the port above it is used too), or 0 for a free one"
        )
    if server.admin_hashed_password and not passwords.is_hash(server.admin_hashed_password):
        raise source.error(
            ["scitq", "admin_hashed_password"],
            "this is no bcrypt hash, and a password must not stand here as it is: put the output of `scitq hashpassword` here, in single quotes",
        )
    if server.network_filesystem not in {"exclusive", "refuse"}:
        raise source.error(["scitq", "network_filesystem"], f"{server.network_filesystem!r} must be exclusive or refuse")
    for name, storage in config.rclone.items():
        if not storage.get("type"):
            raise source.error(["rclone", name], "a storage needs its type: s3, azureblob, … (rclone's name of it)")
    for name, least in (("max_failures", 0), ("transfers", 1)):
        if getattr(config.worker, name) < least:
            raise source.error(["worker", name], f"{getattr(config.worker, name)} is less than {least}")
    for parse, keys in ((units.parse_duration_s, _DURATIONS), (units.parse_bytes, _SIZES)):
        for section, names in keys.items():
            for name in names:
                value = getattr(getattr(config, section), name, "")
                try:
                    if value:
                        parse(value)
                except UsageError as error:
                    raise source.error([section, name], str(error)) from None


def read(path: Path) -> Config:
    """The configuration in `path`; a relative data_dir is meant from there. UsageError with file, line and key for what is wrong in it."""
    source = _Source(path)
    if not isinstance(source.plain, (dict, type(None))):
        raise UsageError(f"{path}: the file must hold sections (scitq:, worker:, rclone:, …), not a {type(source.plain).__name__}")
    plain = source.replace_variables(source.plain or {}, [])
    try:
        config = msgspec.convert({key: value for key, value in plain.items() if value is not None}, Config)
    except msgspec.ValidationError as error:
        raise source.translate(error) from None
    _check(config, source)
    data_dir = config.scitq.data_dir
    if data_dir and not data_dir.startswith(("/", "~")):
        absolute = str(path.absolute().parent / data_dir)
        config = msgspec.structs.replace(config, scitq=msgspec.structs.replace(config.scitq, data_dir=absolute))
    return config


def is_too_open(path: Path) -> bool:
    """Whether others than the owner may read the file, which holds secrets (contract SRV-6)."""
    try:
        return not files.is_private(path)
    except OSError:
        return False
