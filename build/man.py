"""Write a man page for scitq and for each of its commands, through argparse-manpage. Usage: man.py FOLDER

`man scitq-task-create` is `scitq task create --help`; `man scitq` leads there.
"""

import argparse
import sys
from pathlib import Path

from argparse_manpage.manpage import Manpage

import scitq
from scitq.cli.parser import add_global_arguments, make_parser
from scitq.commands import table
from scitq.commands.parsing import Formatter

STATUSES = """0 done; 1 the operation failed; 2 usage; 3 not logged in, or the token is refused; 4 the server cannot be reached;
5 no such object; 6 conflict; 7 not allowed; 10 a task that was waited for failed; 124 timed out; 130 interrupted."""
ENVIRONMENT = """SCITQ_SERVER (host:port), SCITQ_TOKEN, SCITQ_SERVER_KEY, SCITQ_CONFIG, SCITQ_CACHE (where the one file unpacks itself),
SCITQ_DEBUG (show where an internal error came from), NO_COLOR."""


def text(words: str) -> str:
    """One paragraph for troff."""
    return " ".join(words.split()).replace("\\", "\\\\").replace("-", "\\-")


def page(parser: argparse.ArgumentParser, name: str, short: str) -> str:
    """The page of one parser; `name` has dashes where the command has blanks."""
    about = {"project_name": "scitq", "version": scitq.__version__, "manual_title": "scitq", "description": short}
    formatter = parser._get_formatter()
    for action in parser._actions:  # our formatter adds the defaults; argparse-manpage's own wants `%` doubled
        action.help = formatter._expand_help(action).replace("%", "%%")
    made = Manpage(parser, _data=about, format="single-commands-section")
    made.prog = name
    title, rest = str(made).split("\n", 1)
    title = title.replace(made.date.replace("-", "\\-"), made.date)  # as mandoc reads it
    return f"{title}\n{rest.replace('…', '...')}"  # terminals without UTF-8 would show nothing


def overview() -> str:
    """scitq(1): the commands, what all have in common."""
    parser = argparse.ArgumentParser(
        prog="scitq", add_help=False, description=table.GROUPS[()], usage="scitq <object> <action> [options]", formatter_class=Formatter
    )
    add_global_arguments(parser)
    names = [("-".join(("scitq", *command.path)), command.help) for command in table.COMMANDS]
    commands = "".join(f"\n.TP\n.BR {text(name)} (1)\n{text(short)}" for name, short in names)
    sections = f"\n.SH COMMANDS{commands}\n.SH ENVIRONMENT\n{text(ENVIRONMENT)}\n.SH EXIT STATUS\n{text(STATUSES)}\n"
    return page(parser, "scitq", "distributed task queue").rstrip("\n") + sections


def write(folder: Path) -> int:
    """All pages; their number."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scitq.1").write_text(overview())
    for command in table.COMMANDS:
        name = "-".join(("scitq", *command.path))
        (folder / f"{name}.1").write_text(page(make_parser(command), name, command.help.rstrip(".")))
    return len(table.COMMANDS) + 1


if __name__ == "__main__":
    count = write(Path(sys.argv[1]))
    print(f"{count} man pages in {sys.argv[1]}")
