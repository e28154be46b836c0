"""Messages about files on the storages, as users send them: nobody but the server and the workers holds the storages' secrets."""

from __future__ import annotations

from scitq.protocol.registry import USERS, Reply, Request, request


class FileRow(Reply, frozen=True, kw_only=True):
    """One object or, in a listing of one level, a folder (`uri` ends with a slash).

    path: relative to what was asked for. size: bytes, -1 when unknown. etag: the storage's own mark of the content, or empty.
    """

    uri: str
    path: str
    size: int
    modified_ms: int | None = None
    etag: str = ""


class FileRows(Reply, frozen=True, kw_only=True):
    """What lies there, by path. `is_cut`: there is more than a message can hold."""

    rows: list[FileRow]
    is_cut: bool = False


@request("file.list", USERS, FileRows)
class FileList(Request, frozen=True, kw_only=True):
    """What lies at `uri`: a file, a folder (its next level, or all with `is_recursive`), a pattern, a storage's root."""

    uri: str
    is_recursive: bool = False


@request("file.find", USERS, FileRows)
class FileFind(Request, frozen=True, kw_only=True):
    """The files that `uri` means as an input; SourceMissingError when there is none."""

    uri: str


class FileSigned(Reply, frozen=True, kw_only=True):
    """URLs in the order asked for; empty when this storage can't sign and the server relays (file.read, file.write)."""

    urls: list[str] = []


@request("file.sign", USERS, FileSigned)
class FileSign(Request, frozen=True, kw_only=True):
    """URLs for GET, HEAD or PUT of single objects without keys, good for `expires_s`.

    part: with HEAD, asks for this part (from 1 on) of objects that were stored in parts; 0 for the whole.
    """

    uris: list[str]
    method: str = "GET"
    expires_s: int = 3600
    part: int = 0


class FileParts(Reply, frozen=True, kw_only=True):
    """An upload in parts; `upload_id` is empty when this storage has none."""

    upload_id: str = ""
    urls: list[str] = []


@request("file.parts", USERS, FileParts)
class FileStartParts(Request, frozen=True, kw_only=True):
    """Begin an upload in `count` parts (`upload_id` empty), or sign parts `first` to `first + count - 1` of one that was begun."""

    uri: str
    count: int
    first: int = 1
    upload_id: str = ""
    expires_s: int = 3600


@request("file.end_parts", USERS)
class FileEndParts(Request, frozen=True, kw_only=True):
    """Make the object of its parts, whose ETags come in order; without any, forget the upload."""

    uri: str
    upload_id: str
    etags: list[str] = []


class FileChunk(Reply, frozen=True, kw_only=True):
    """A piece of a file; shorter than asked for at the end."""

    data: bytes


@request("file.read", USERS, FileChunk)
class FileRead(Request, frozen=True, kw_only=True):
    """Read through the server. `etag`: what file.find said; another content by now is an error; empty asks for no check."""

    uri: str
    offset: int
    most_bytes: int = 4 << 20
    etag: str = ""


class FileWriting(Reply, frozen=True, kw_only=True):
    """A write through the server is under way."""

    write_id: str


@request("file.write", USERS, FileWriting)
class FileWrite(Request, frozen=True, kw_only=True):
    """Begin to store a file of `size` bytes through the server; it is dropped when nothing comes for two minutes."""

    uri: str
    size: int


@request("file.write_chunk", USERS)
class FileWriteChunk(Request, frozen=True, kw_only=True):
    """The next piece, answered when there is room for a further one; a piece that came already is let be."""

    write_id: str
    offset: int
    data: bytes


@request("file.end_write", USERS)
class FileEndWrite(Request, frozen=True, kw_only=True):
    """Answered when the file is stored whole. `crc32`: of all bytes; None drops the file."""

    write_id: str
    crc32: int | None = None


class FilesDeleted(Reply, frozen=True, kw_only=True):
    """How many were there."""

    count: int


@request("file.delete", USERS, FilesDeleted)
class FileDelete(Request, frozen=True, kw_only=True):
    """Delete a file, those that a pattern matches, or, with `is_recursive`, a folder."""

    uri: str
    is_recursive: bool = False


class FileChecked(Reply, frozen=True, kw_only=True):
    """Whether the URI can be reached from there, and why not."""

    is_reachable: bool
    detail: str
    files: int = 0
    bytes: int = 0


@request("file.check", USERS, FileChecked)
class FileCheck(Request, frozen=True, kw_only=True):
    """Can the server reach this URI with its credentials? (A worker is asked by worker.ask, order `check`.)"""

    uri: str


class FileCopying(Reply, frozen=True, kw_only=True):
    """How far a copy between storages is. `error` says why it failed, once `is_ended`."""

    copy_id: str
    done_bytes: int = 0
    total_bytes: int = 0
    done_files: int = 0
    total_files: int = 0
    is_ended: bool = False
    error: str = ""
    error_code: str = ""


@request("file.copy", USERS, FileCopying)
class FileCopy(Request, frozen=True, kw_only=True):
    """Begin to copy what `source` means to `target` (a folder when it ends with a slash or `source` is more than a file)."""

    source: str
    target: str


@request("file.copy_status", USERS, FileCopying)
class FileCopyStatus(Request, frozen=True, kw_only=True):
    """How far it is, answered after `at_most_s` or at its end. A copy that nobody asks about for two minutes is cancelled."""

    copy_id: str
    at_most_s: float = 1.0
    is_cancelled: bool = False
