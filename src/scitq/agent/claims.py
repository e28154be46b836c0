"""Who gives which path: two sources for one name are told before anything runs (contract RES-12, IN-10, UNT-7, MV-6)."""

from __future__ import annotations

from scitq.errors import StorageError


class Claims:
    """Paths below /input or /resource with the URI that gives each."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def add_file(self, path: str, uri: str) -> None:
        """`uri` gives the file or link `path`; raises StorageError naming both URIs when another gives it, or a folder of that name."""
        other = self._files.get(path)
        if other is not None or path in self._folders:
            raise self._collision(path, other or self._folders[path], uri)
        self._files[path] = uri
        self._add_parents(path, uri)

    def add_folder(self, path: str, uri: str) -> None:
        """`uri` gives the folder `path`, as others may too."""
        self._add_parents(f"{path}/.", uri)

    def _add_parents(self, path: str, uri: str) -> None:
        parent = path.rpartition("/")[0]
        while parent and parent not in self._folders:
            other = self._files.get(parent)
            if other is not None:
                raise self._collision(parent, other, uri)
            self._folders[parent] = uri
            parent = parent.rpartition("/")[0]

    def _collision(self, path: str, one: str, other: str) -> StorageError:
        return StorageError(
            f"{one!r} and {other!r} would both give {self._root}/{path}; put one of them into a folder of its own with |mv:FOLDER"
        )
