"""The way of one command: words, options, work, exit status; nothing that a person sees is a traceback."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

from scitq import errors

EXIT_BROKEN_PIPE = 141


def _prepare_streams() -> None:
    """UTF-8 whatever the locale says; a stream that was closed by the caller becomes /dev/null."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - lives as long as the process
        else:
            stream.reconfigure(encoding="utf-8", errors="surrogateescape" if number < 2 else "backslashreplace")


def _words() -> list[str]:
    """The arguments, decoded as UTF-8 whatever the locale says."""
    return [os.fsencode(word).decode("utf-8", "surrogateescape") for word in sys.argv[1:]]


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def _forget_stdout() -> None:
    """What stdout could not take is let go, so that the interpreter does not try it again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _say(text: str) -> None:
    """One complaint on stderr; what it quotes (a file's name, a value) may hold control characters, but can't drive the terminal."""
    from scitq.commands.render import neutral_lines

    print(f"scitq: {neutral_lines(text)}", file=sys.stderr)


def _unforeseen(error: Exception) -> str:
    """What to say of a failure that no command foresaw: of a file, in the system's words; of ourselves, as what it is."""
    if isinstance(error, OSError) and error.strerror and isinstance(error.filename, (str, bytes)):
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return f"internal error: {type(error).__name__}: {error} (SCITQ_DEBUG=1 shows where)"


def _run(words: Sequence[str]) -> int:
    from scitq.cli import parser

    typed = parser.walk(words)
    if typed.wants_version:
        from scitq import __version__

        print(f"scitq {__version__}")
        return errors.EXIT_OK
    from scitq.commands import table

    command = table.find(typed.path)
    if command is None:
        print(parser.group_help(typed.path), file=sys.stdout if typed.wants_help else sys.stderr)
        return errors.EXIT_OK if typed.wants_help else errors.EXIT_USAGE
    from scitq.commands.context import Context

    options = parser.make_parser(command).parse(typed.rest)
    context = Context(command, options)
    try:
        return parser.load(command).run(context)
    finally:
        context.close()


def run(words: Sequence[str]) -> int:
    """Carry out one command line; every failure is a line on stderr and an exit status (docs/cli.md)."""
    try:
        status = _run(words)
        sys.stdout.flush()
    except errors.ScitqError as error:
        _say(error.message)
        status = error.exit_status
    except UnicodeEncodeError as error:  # a word, a variable or a file's name that no message can carry
        _say(f"{error.object[:200]!r} is not valid UTF-8")
        status = errors.EXIT_USAGE
    except KeyboardInterrupt:
        status = errors.EXIT_INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        status = EXIT_BROKEN_PIPE
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else errors.EXIT_FAILED if leaving.code else errors.EXIT_OK
    except Exception as error:
        if os.environ.get("SCITQ_DEBUG"):
            raise
        if isinstance(error, OSError) and error.errno in _NO_ROOM and error.filename is None:
            _forget_stdout()
            _say(f"stdout can't be written: {error.strerror}")
        else:
            _say(_unforeseen(error))
        status = errors.EXIT_FAILED
    return status


def main() -> int:
    """The program."""
    _prepare_streams()
    return run(_words())
