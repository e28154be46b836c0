"""Opening the database: WAL through APSW, `synchronous=FULL`, one writer, any number of readers, migrations."""

from __future__ import annotations

import fcntl
import functools
import itertools
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import apsw

from scitq.errors import ConflictError, ScitqError, UsageError
from scitq.util import filesystems

_BUSY_MS = 10_000
_ROWS_AT_ONCE = (100, 10)


class Store:
    """One data folder: its lock, its writer connection, and readers on demand.

    The writer belongs to the broker's loop; each reader to the thread that opened it.
    """

    def __init__(self, folder: Path, *, on_network: str = "exclusive", assume_network: bool = False) -> None:
        """Open or make the database in `folder` (a private folder that exists).

        on_network: what to do on a network file system: "exclusive" (no shared-memory index, one process, readers share
        the writer's connection) or "refuse" (contract SRV-5). Raises ConflictError when another server has the folder.
        """
        self.folder = folder
        self.path = folder / "scitq.db"
        kind = filesystems.kind_of(folder)
        self.is_exclusive = assume_network or filesystems.is_network(kind)
        if self.is_exclusive and on_network == "refuse":
            raise UsageError(
                f"the data folder {folder} lies on {kind}, a network file system, where the database's shared memory breaks;"
                " put scitq.data_dir on a local disk"
                " (or set scitq.network_filesystem to exclusive)"
            )
        self._lock = self._take_lock()
        self.writer = self._open()
        self._migrate()

    def _take_lock(self) -> int:
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise ConflictError(f"another scitq server is running on the data folder {self.folder}") from None
        return descriptor

    def _open(self) -> apsw.Connection:
        connection = apsw.Connection(str(self.path))
        connection.set_busy_timeout(_BUSY_MS)
        if self.is_exclusive:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").get
        except apsw.BusyError:
            raise ConflictError(f"another process has the database {self.path} open") from None
        if mode != "wal":
            raise ScitqError(f"the database {self.path} can't be opened in WAL mode (it is {mode})")
        for pragma in ("synchronous = FULL", "foreign_keys = ON", "temp_store = MEMORY", "cache_size = -65536", "mmap_size = 268435456"):
            connection.execute(f"PRAGMA {pragma}")
        self.path.chmod(0o600)
        return connection

    def reader(self) -> apsw.Connection:
        """A read-only connection for the calling thread; on a network file system the writer itself is given."""
        if self.is_exclusive:
            return self.writer
        connection = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READONLY)
        connection.set_busy_timeout(_BUSY_MS)
        connection.execute("PRAGMA mmap_size = 268435456")
        connection.execute("PRAGMA cache_size = -16384")
        return connection

    def _migrate(self) -> None:
        files = sorted(
            (entry for entry in resources.files("scitq.broker.store").joinpath("migrations").iterdir() if entry.name.endswith(".sql")),
            key=lambda entry: entry.name,
        )
        done: int = self.writer.execute("PRAGMA user_version").get
        newest = int(files[-1].name.split("_")[0])
        if done > newest:
            raise ConflictError(f"the database {self.path} was made by a newer scitq (schema {done}, this one knows {newest})")
        for entry in files:
            number = int(entry.name.split("_")[0])
            if number > done:
                with self.writer:
                    self.writer.execute(entry.read_text())
                    self.writer.execute(f"PRAGMA user_version = {number}")

    def backup(self, target: Path) -> int:
        """Copy the database to `target`, which must not exist, in one step on an own connection; returns its bytes."""
        if target.exists():
            raise ConflictError(f"{target} exists already")
        source = self.reader()
        source.execute("VACUUM INTO ?", (str(target),))
        target.chmod(0o600)
        return target.stat().st_size

    def close(self) -> None:
        """Fold the WAL into the database, close, and give the folder free."""
        self.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.writer.close()
        os.close(self._lock)


def rows(cursor: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - an APSW cursor
    """The rest of a result as dicts by column name; for the few places that map by name."""
    names = [column[0] for column in cursor.getdescription()] if cursor else []
    return [dict(zip(names, row, strict=True)) for row in cursor]


@functools.cache
def _insertion(table: str, shared: tuple[str, ...], own: tuple[str, ...], tail: str, count: int) -> str:
    row = ", ".join([f"?{number + 1}" for number in range(len(shared))] + ["?"] * len(own))
    return f"INSERT INTO {table} ({', '.join(shared + own)}) VALUES {', '.join([f'({row})'] * count)} {tail}"


def insert_rows(
    tx: apsw.Connection, table: str, shared: dict[str, Any], own: tuple[str, ...], rows: Sequence[tuple[Any, ...]], tail: str = ""
) -> int:
    """Insert many rows, in order; the rowid of the last. `shared`: columns that are the same in all; `own`: those that `rows` hold.

    A hundred rows in a statement take half the time that a hundred statements take (docs/benchmarks.md).
    """
    constants, columns = tuple(shared.values()), (table, tuple(shared), own, tail)
    done = 0
    for count in _ROWS_AT_ONCE:
        while len(rows) - done >= count:
            tx.execute(_insertion(*columns, count), (*constants, *itertools.chain.from_iterable(rows[done : done + count])))
            done += count
    if done < len(rows):
        tx.executemany(_insertion(*columns, 1), [constants + row for row in rows[done:]])
    return tx.last_insert_rowid()
