"""argparse with its surprises taken out (contract CLI-2 to CLI-5)."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import IO, NoReturn

from scitq.commands import table
from scitq.errors import UsageError


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help in which every option shows its default, and `%` is an ordinary character."""

    def __init__(self, prog: str) -> None:
        width = 100
        if os.environ.get("COLUMNS", "").isdecimal():
            width = max(60, int(os.environ["COLUMNS"]) - 2)
        elif sys.stdout is not None and sys.stdout.isatty():
            width = max(60, min(120, os.get_terminal_size(sys.stdout.fileno()).columns - 2))
        super().__init__(prog, max_help_position=30, width=width)

    def _expand_help(self, action: argparse.Action) -> str:
        text = action.help or ""
        if isinstance(action, argparse._HelpAction) or not action.option_strings or "(default" in text:
            return text
        if action.required:
            return f"{text} (required)"
        if action.nargs == 0:
            return f"{text} (default: {'yes' if action.default else 'no'})"
        repeatable = "repeatable; " if is_repeatable(action) else ""
        default = "none" if action.default in (None, [], "") else action.default
        return f"{text} ({repeatable}default: {default})"


def is_repeatable(action: argparse.Action) -> bool:
    """Whether the option may be given several times."""
    return isinstance(action, (argparse._AppendAction, argparse._ExtendAction, argparse._HelpAction))


def suggest(word: str, known: Sequence[str]) -> str:
    """`; did you mean …?`, or nothing when no known word is close."""
    import difflib

    close = difflib.get_close_matches(word, known, n=3, cutoff=0.55)
    return f"; did you mean {' or '.join(close)}?" if close else ""


class Parser(argparse.ArgumentParser):
    """The options of one command."""

    def __init__(self, command: table.Command) -> None:
        super().__init__(
            prog=f"scitq {' '.join(command.path)}", description=command.help, allow_abbrev=False, add_help=False, formatter_class=Formatter
        )
        self.command = command

    def _print_message(self, message: str, file: IO[str] | None = None) -> None:  # type: ignore[override] # streams of text are all that comes
        """As argparse has it, but a stdout that can't be written is an error."""
        stream = file or sys.stdout
        stream.write(message)
        stream.flush()

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of leaving."""
        raise UsageError(f"{message}\nsee: {self.prog} --help")

    def _join_values(self, words: Sequence[str]) -> list[str]:
        """`--option value` as `--option=value`, so that a value may start with a dash; refuses doubles and unknown flags."""
        joined: list[str] = []
        seen: dict[str, str] = {}
        waiting = iter(words)
        for given in waiting:
            word = "--help" if given == "-help" else given
            flag, equals, _ = word.partition("=")
            action = self._option_string_actions.get(flag)
            if action is None:
                if word.startswith("-") and word not in {"-", "--"}:
                    self.error(f"there is no option {flag}{suggest(flag, list(self._option_string_actions))}")
                joined.append(word)
                continue
            if not is_repeatable(action):
                if action.dest in seen:
                    also = f" (as {seen[action.dest]} too)" if seen[action.dest] != flag else ""
                    self.error(f"{flag} is given twice{also}; it can be given once")
                seen[action.dest] = flag
            if action.nargs is None and not equals:
                value = next(waiting, None)
                if value is None:
                    self.error(f"{flag} needs a value")
                joined.append(f"{flag}={value}")
            else:
                joined.append(word)
        return joined

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """The options in `words`; UsageError for what is wrong. Asking for help prints it and raises SystemExit(0)."""
        return self.parse_args(self._join_values(words))
