"""What a command is given: its options, the server when it asks for it, and where to write."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scitq.commands.render import Output, neutral_lines
from scitq.commands.table import Command

if TYPE_CHECKING:
    from scitq.client.api import Api


class Context:
    """One run of one command."""

    def __init__(self, command: Command, options: argparse.Namespace) -> None:
        self.command = command
        self.options = options
        self.out = Output(is_json=options.json, is_quiet=options.quiet)
        self._api: Api | None = None

    def api(self, *, needs_token: bool = True) -> Api:
        """The connection to the server, made at the first call and closed at the end of the command."""
        if self._api is None:
            from scitq.client.api import connect

            if needs_token and self.options.token_file:
                self.warn_of_open(self.options.token_file)
            self._api = connect(self.options.server, self.options.token_file, needs_token=needs_token)
        return self._api

    def note(self, text: str) -> None:
        """A remark for people: on stderr, and not with --quiet."""
        if not self.out.is_quiet:
            print(f"scitq: {neutral_lines(text)}", file=sys.stderr)

    def done(self, text: str, **facts: object) -> None:
        """The end of an action that has no ids to print: a remark, and with --json the facts."""
        if self.out.is_json:
            self.out.json(facts)
        self.note(text)

    def warn_of_open(self, file: str) -> None:
        """Say so when others may read a file that holds a secret (contract SRV-6)."""
        try:
            mode = os.stat(file).st_mode  # noqa: PTH116 - quicker than a Path
        except OSError:
            return
        if stat.S_ISREG(mode) and mode & 0o077:
            self.note(f"warning: {file} holds a secret and can be read by others; chmod 600 it")

    def task_ids(self, texts: Sequence[str]) -> list[int]:
        """The ids that `--id` values select, in ascending order when a range is among them; NotFoundError for an id that is not."""
        from scitq.commands.selection import selected
        from scitq.protocol.messages.task import TaskFind, TaskIds

        is_last, ranges = selected(texts)
        if not is_last and all(first == last for first, last, _ in ranges):
            return list(dict.fromkeys(first for first, _, _ in ranges))
        return self.api().call(TaskFind(ranges=ranges, is_last=is_last), TaskIds).ids

    def close(self) -> None:
        """End the connection, if there is one."""
        if self._api is not None:
            self._api.close()
            self._api = None
