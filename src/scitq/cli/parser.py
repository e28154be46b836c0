"""Parsers made from the table of commands: argparse with its surprises taken out (contract CLI-1 to CLI-5)."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn, Protocol

from scitq.commands import table
from scitq.errors import UsageError

HELP_FLAGS = ("-h", "--help", "-help")


class CommandModule(Protocol):
    """What a module under scitq.commands offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of the command."""

    def run(self, context: Any) -> int:  # noqa: ANN401 - a Context; named Any so that the parser imports no client
        """Do it; the exit status."""


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help in which every option shows its default, and `%` is an ordinary character."""

    def __init__(self, prog: str) -> None:
        width = 100
        if sys.stdout is not None and sys.stdout.isatty():
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


def add_global_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that every command has."""
    group = parser.add_argument_group("options of every command")
    group.add_argument("-h", "--help", action="help", help="show this help and exit (-help works too)")
    group.add_argument(
        "--server", metavar="HOST:PORT", help="the server (default: $SCITQ_SERVER, else your own one here, else localhost:50051)"
    )
    group.add_argument(
        "--token-file", metavar="FILE", help="a file that holds the token (default: $SCITQ_TOKEN, else what login left for the terminal)"
    )
    group.add_argument(
        "--config", metavar="FILE", help="scitq.yaml, for serve, agent and config (default: $SCITQ_CONFIG, else the usual places)"
    )
    group.add_argument("--json", action="store_true", help="print JSON")
    group.add_argument("--quiet", action="store_true", help="print ids only, and no remarks")


def load(command: table.Command) -> CommandModule:
    """The module of a command."""
    found: Any = importlib.import_module(f"scitq.commands.{command.module}")
    module: CommandModule = found
    return module


def make_parser(command: table.Command) -> Parser:
    """The parser of one command, with the options of every command last."""
    parser = Parser(command)
    module = load(command)
    parser.epilog = getattr(module, "EPILOG", None)
    module.add_arguments(parser)
    add_global_arguments(parser)
    return parser


GLOBAL_FLAGS = frozenset({"--json", "--quiet"})
GLOBAL_VALUES = frozenset({"--server", "--token-file", "--config"})


class Typed(NamedTuple):
    """Where the words led: the path, the options after it, and whether help for a group or the version was asked for."""

    path: tuple[str, ...]
    rest: list[str]
    wants_help: bool = False
    wants_version: bool = False


def walk(words: Sequence[str]) -> Typed:
    """Follow the words down the table as far as they go; UsageError with close names for a word that is none."""
    path: tuple[str, ...] = ()
    kept: list[str] = []
    waiting = list(words)
    while waiting and table.find(path) is None:
        word = waiting.pop(0)
        flag = word.partition("=")[0]
        if word in HELP_FLAGS:
            return Typed(path, kept, wants_help=True)
        if word in {"--version", "-V"} and not path:
            return Typed(path, kept, wants_version=True)
        if flag in GLOBAL_VALUES or word in GLOBAL_FLAGS:
            kept.append(word)
            if word in GLOBAL_VALUES:
                if not waiting:
                    raise UsageError(f"{word} needs a value")
                kept.append(waiting.pop(0))
            continue
        known = table.children(path)
        typed = " ".join(("scitq", *path))
        if word.startswith("-"):
            flags = [*GLOBAL_FLAGS, *GLOBAL_VALUES, "--help", *(() if path else ("--version",))]
            raise UsageError(f"{typed}: there is no option {flag} here{suggest(flag, flags)}\nsee: {typed} --help")
        if word not in known:
            what = "action" if path else "object or command"
            raise UsageError(f"{typed}: there is no {what} {word!r}{suggest(word, list(known))}\nsee: {typed} --help")
        path = (*path, word)
    return Typed(path, [*kept, *waiting])


def group_help(path: tuple[str, ...]) -> str:
    """The help of a group: what may follow."""
    known = table.children(path)
    typed = " ".join(("scitq", *path))
    width = max(len(word) for word in known) + 2
    lines = [f"usage: {typed} {'<object> <action>' if not path else '<action>'} [options]", "", table.GROUPS[path], ""]
    lines += [f"  {word:<{width}}{text}" for word, text in known.items()]
    lines += ["", f"`{typed} {'<object> ' if not path else ''}<action> --help` shows the options of an action, with their defaults."]
    if not path:
        lines += ["", "options of every command:"]
        shown = argparse.ArgumentParser(prog="scitq", add_help=False, formatter_class=Formatter, usage=argparse.SUPPRESS)
        add_global_arguments(shown)
        lines += shown.format_help().splitlines()[2:]
        lines += ["  --version                   show the version and exit"]
    return "\n".join(lines)
