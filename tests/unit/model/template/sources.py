"""The world outside a workflow file, given as two tables."""

from __future__ import annotations

from dataclasses import dataclass, field

from scitq.errors import UsageError


@dataclass
class Files:
    """`listings`: what each URI lists; `texts`: the user's files."""

    listings: dict[str, list[str]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def read_text(self, path: str) -> str:
        if path not in self.texts:
            raise UsageError(f"{path} can't be read: no such file")
        return self.texts[path]

    def list_uri(self, uri: str) -> list[str]:
        return self.listings[uri]
