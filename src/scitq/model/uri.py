"""URIs of resources, inputs and outputs, and the actions written after them (docs/storage.md, "URIs"; contract sections 4 to 7)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from scitq.errors import UsageError

WEB_SCHEMES: Final = frozenset({"http", "https"})
BUILT_IN: Final = ("file", "ftp", "http", "https")
"""Schemes that need no entry in scitq.yaml; only workers open them, never the server for a user."""
MAX_NAME_BYTES: Final = 255
SCHEME: Final = re.compile(r"[\w.+@-](?:[\w.+@ -]*[\w.+@-])?")
"""The name of a storage."""
_ESCAPED_BAR = re.compile("%((?:25)*)(7c)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Untar:
    """Put the content of an archive in the archive's place."""

    def __str__(self) -> str:
        return "untar"


@dataclass(frozen=True, slots=True)
class Gunzip:
    """Put the decompressed file in the compressed one's place."""

    def __str__(self) -> str:
        return "gunzip"


@dataclass(frozen=True, slots=True)
class Move:
    """Download into `folder`, relative, without `.` or `..`, below /input or /resource."""

    folder: str

    def __str__(self) -> str:
        return f"mv:{_escape(self.folder)}"


Action = Untar | Gunzip | Move


@dataclass(frozen=True, slots=True)
class Uri:
    """`scheme://bucket/path|action…`, taken apart.

    scheme: the name of an entry of scitq.yaml's `rclone` section, or a built-in one.
    path: all between `://` and the first `|`, bucket included, `%7C` read as `|` and `%257C` as `%7C`; every other character
    stands for itself. A web address is kept as it is written, for its servers read the escapes.
    """

    scheme: str
    path: str
    actions: tuple[Action, ...] = ()

    @classmethod
    def parse(cls, text: str, *, may_be_root: bool = False) -> Self:
        """The URI that `text` writes; raises UsageError that says what is wrong with it.

        may_be_root: accept `scheme://` alone, the storage's root, as listings do.
        """
        _require_encodable(text)
        scheme, separator, rest = text.partition("://")
        if not separator:
            raise UsageError(f"{text!r} is no URI; write storage://bucket/path")
        if "*" in scheme:
            raise UsageError(f"{text!r}: * may not stand in the storage's name")
        if not SCHEME.fullmatch(scheme):
            raise UsageError(f"{text!r}: {scheme!r} can't be the name of a storage")
        path, *words = rest.split("|")
        path = path if scheme in WEB_SCHEMES else _unescape(path)
        _check_path(text, scheme, path, may_be_root)
        return cls(scheme, path, tuple(_parse_action(text, word) for word in words))

    @classmethod
    def parse_output(cls, text: str) -> Self:
        """The folder that `text` names, with its ending slash; raises UsageError for actions, `*`, `..` and emptiness (OUT-5)."""
        if not text.strip():
            raise UsageError("the output is empty; write storage://bucket/folder/")
        if "|" in text:
            raise UsageError(f"{text!r}: actions are not possible on an output; write | within a name as %7C")
        if "*" in text:
            raise UsageError(f"{text!r}: * is not possible in an output")
        uri = cls.parse(text)
        if uri.scheme in WEB_SCHEMES:
            raise UsageError(f"{text!r}: {uri.scheme} can be read only, not be an output")
        if ".." in uri.path.split("/"):
            raise UsageError(f"{text!r}: .. is not possible in an output")
        return cls(uri.scheme, uri.path if uri.is_folder else f"{uri.path}/")

    @property
    def bucket(self) -> str:
        """The first part of the path: a bucket, a host, or a top folder."""
        return self.path.partition("/")[0]

    @property
    def key(self) -> str:
        """The path below the bucket."""
        return self.path.partition("/")[2]

    @property
    def name(self) -> str:
        """The last part of the path, without ending slash and, for the web, without the query."""
        path = self.path.partition("?")[0] if self.scheme in WEB_SCHEMES else self.path
        return path.rstrip("/").rpartition("/")[2]

    @property
    def is_folder(self) -> bool:
        """Whether it ends with a slash."""
        return self.path.endswith("/")

    @property
    def has_pattern(self) -> bool:
        """Whether a `*` is to be matched; in a web address it never is."""
        return "*" in self.path and self.scheme not in WEB_SCHEMES

    @property
    def folder(self) -> str:
        """Where `mv:` sends it, relative to /input or /resource; empty without `mv:`; the last one counts."""
        return next((action.folder for action in reversed(self.actions) if isinstance(action, Move)), "")

    @property
    def location(self) -> str:
        """The URI without its actions, as written."""
        return f"{self.scheme}://{self.path if self.scheme in WEB_SCHEMES else _escape(self.path)}"

    def __str__(self) -> str:
        return "|".join([self.location, *map(str, self.actions)])


def name_matches(pattern: str, name: str) -> bool:
    """Whether `name`, one part of a path, is described by `pattern`, in which `*` stands for any characters or none.

    Nothing else is special, names that start with a dot match too, and the time is linear in the name's length for each `*`.
    """
    first, *others = pattern.split("*")
    if not others:
        return pattern == name
    last = others.pop()
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    position, end = len(first), len(name) - len(last)
    for piece in others:
        found = name.find(piece, position, end)
        if found < 0:
            return False
        position = found + len(piece)
    return True


def _check_path(text: str, scheme: str, path: str, may_be_root: bool) -> None:
    if not path.strip("/") and not (may_be_root or (scheme == "file" and path)):
        raise UsageError(f"{text!r} names neither a bucket nor a folder; write storage://bucket/path")
    if scheme == "file":
        if not path.startswith("/"):
            raise UsageError(f"{text!r}: a file is named by its absolute path, as in file:///folder/name")
        return
    if path.startswith("/"):
        raise UsageError(f"{text!r}: the bucket is missing between :// and /")
    if "*" in path.partition("/")[0]:
        raise UsageError(f"{text!r}: * may not stand in the bucket's name")
    if scheme in WEB_SCHEMES and "*" in path.partition("?")[0]:
        raise UsageError(f"{text!r}: web servers can't be listed, so * matches nothing there")


def _parse_action(text: str, word: str) -> Action:
    word = _unescape(word)
    match word:
        case "untar":
            return Untar()
        case "gunzip":
            return Gunzip()
        case "":
            raise UsageError(f"{text!r}: an action is empty; possible are untar, gunzip and mv:FOLDER (a | within a name is written %7C)")
    if not word.startswith("mv:"):
        raise UsageError(f"{text!r}: unknown action {word!r}; possible are untar, gunzip and mv:FOLDER")
    folder = word.removeprefix("mv:")
    if folder.startswith("/"):
        raise UsageError(f"{text!r}: mv: takes a folder below /input or /resource, not the absolute path {folder!r}")
    parts = [part for part in folder.split("/") if part not in {"", "."}]
    if not parts:
        raise UsageError(f"{text!r}: mv: needs the name of a folder")
    if ".." in parts:
        raise UsageError(f"{text!r}: mv: may not use ..")
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        raise UsageError(f"{text!r}: mv: has a name longer than the {MAX_NAME_BYTES} bytes that disks allow")
    return Move("/".join(parts))


def _require_encodable(text: str) -> None:
    if "\0" in text:
        raise UsageError(f"{text!r}: a URI can't hold a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{text!r} is not valid UTF-8") from None


def _escape(text: str) -> str:
    return _ESCAPED_BAR.sub(r"%25\1\2", text).replace("|", "%7C")


def _unescape(text: str) -> str:
    """The inverse of `_escape`; a name that holds `%7C` itself must not become another name's."""
    return _ESCAPED_BAR.sub(lambda found: f"%{found[1][2:]}{found[2]}" if found[1] else "|", text)
