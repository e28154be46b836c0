"""Parsers made from the table of commands, and the way to the right one (contract CLI-1)."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from scitq.commands import table
from scitq.commands.parsing import Formatter, Parser, suggest
from scitq.errors import UsageError

HELP_FLAGS = ("-h", "--help", "-help")


class CommandModule(Protocol):
    """What a module under scitq.commands offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of the command."""

    def run(self, context: Any) -> int:  # noqa: ANN401 - a Context; named Any so that the parser imports no client
        """Do it; the exit status."""


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
    group.add_argument("--quiet", action="store_true", help="print ids only (nothing where there are none), and no remarks")


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
        where = f"{typed}: " if path else ""  # the name stands before every message anyway
        if word.startswith("-"):
            flags = [*GLOBAL_FLAGS, *GLOBAL_VALUES, "--help", *(() if path else ("--version",))]
            raise UsageError(f"{where}there is no option {flag} here{suggest(flag, flags)}\nsee: {typed} --help")
        if word not in known:
            what = "action" if path else "object or command"
            raise UsageError(f"{where}there is no {what} {word!r}{suggest(word, list(known))}\nsee: {typed} --help")
        path = (*path, word)
    return Typed(path, [*kept, *waiting])


def group_help(path: tuple[str, ...]) -> str:
    """The help of a group: what may follow."""
    import textwrap

    known = table.children(path)
    typed = " ".join(("scitq", *path))
    width = max(len(word) for word in known) + 2
    room = Formatter(typed)._width
    lines = [
        f"usage: {typed} {'<object> <action>' if not path else '<action>'} [options]",
        "",
        *textwrap.wrap(table.GROUPS[path], room),
        "",
    ]
    for word, text in known.items():
        lines += textwrap.wrap(text, room, initial_indent=f"  {word:<{width}}", subsequent_indent=" " * (width + 2))
    shows = f"`{typed} {'<object> ' if not path else ''}<action> --help` shows the options of an action, with their defaults."
    lines += ["", *textwrap.wrap(shows, room)]
    if not path:
        lines += ["", "options of every command:"]
        shown = argparse.ArgumentParser(prog="scitq", add_help=False, formatter_class=Formatter, usage=argparse.SUPPRESS)
        add_global_arguments(shown)
        shown._action_groups[-1].add_argument("--version", action="version", help="show the version and exit (default: no)")
        options = shown.format_help().splitlines()
        lines += options[next(number for number, line in enumerate(options) if line.startswith("  --server")) :]
    return "\n".join(lines)
