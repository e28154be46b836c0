"""`scitq completion bash | zsh | fish`: made from the table of commands and their options."""

from __future__ import annotations

import argparse
import importlib
import shlex
from typing import NamedTuple

from scitq.commands import table
from scitq.commands.context import Context
from scitq.commands.parsing import Parser
from scitq.errors import EXIT_OK

EPILOG = """  bash:  scitq completion bash > ~/.local/share/bash-completion/completions/scitq
  zsh:   scitq completion zsh > a folder of $fpath, as _scitq
  fish:  scitq completion fish > ~/.config/fish/completions/scitq.fish"""
COMMON = ("--help", "--server", "--token-file", "--config", "--json", "--quiet")
_TAKES_VALUE = ("--server", "--token-file", "--config")
_TAKES_NONE = tuple(flag for flag in COMMON if flag not in _TAKES_VALUE)


class Option(NamedTuple):
    """A flag with what it is for; `choices` of its value, if it takes one of a few."""

    flag: str
    help: str
    takes_value: bool
    choices: tuple[str, ...] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which shell."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell to complete in")


def options_of(command: table.Command) -> list[Option]:
    """The options of one command, those of every command included."""
    parser = Parser(command)
    importlib.import_module(f"scitq.commands.{command.module}").add_arguments(parser)
    found = [
        Option(flag, (action.help or "").split("\n")[0], action.nargs is None, tuple(map(str, action.choices or ())))
        for action in parser._actions
        for flag in action.option_strings
        if flag.startswith("--")
    ]
    return found + [Option(flag, "", flag in _TAKES_VALUE) for flag in COMMON]


def positionals_of(command: table.Command) -> list[str]:
    """The words that a command takes without a flag, where they are a few."""
    parser = Parser(command)
    importlib.import_module(f"scitq.commands.{command.module}").add_arguments(parser)
    return [str(choice) for action in parser._actions if not action.option_strings for choice in action.choices or ()]


def _groups() -> list[tuple[str, ...]]:
    return list(table.GROUPS)


_BASH = """# bash completion of scitq; made by `scitq completion bash`
_scitq() {{
    local current previous path word is_value
    COMPREPLY=()
    current=${{COMP_WORDS[COMP_CWORD]}}
    previous=${{COMP_WORDS[COMP_CWORD-1]}}
    path=
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        if [ -n "$is_value" ]; then
            [ "$word" = = ] || is_value=
            continue
        fi
        case "$word" in
            {valued}) is_value=1; continue ;;
            {plain}) continue ;;
            -*) break ;;
        esac
        case " $path${{path:+ }}$word " in
{known}
        esac
    done
    case "$path:$previous" in
{values}
    esac
    case "$path" in
{words}
    esac
}}
complete -o default -F _scitq scitq
"""


def bash() -> str:
    """For bash 4 and later."""
    paths = [" ".join(path) for path in (*_groups(), *(command.path for command in table.COMMANDS)) if path]
    known = "\n".join(f'            " {path} ") path={shlex.quote(path)} ;;' for path in paths)
    values, words = [], []
    for path in _groups():
        listed = " ".join([*table.children(path), *COMMON])
        words.append(f'        {shlex.quote(" ".join(path))}) COMPREPLY=($(compgen -W {shlex.quote(listed)} -- "$current")) ;;')
    for command in table.COMMANDS:
        path_text = " ".join(command.path)
        found = options_of(command)
        for option in found:
            if option.choices:
                chosen = shlex.quote(" ".join(option.choices))
                values.append(
                    f'        {shlex.quote(f"{path_text}:{option.flag}")}) COMPREPLY=($(compgen -W {chosen} -- "$current")); return ;;'
                )
        plain = "|".join(shlex.quote(f"{path_text}:{option.flag}") for option in found if option.takes_value and not option.choices)
        values.append(f"        {plain}) return ;;")
        listed = " ".join([*positionals_of(command), *(option.flag for option in found)])
        words.append(f'        {shlex.quote(path_text)}) COMPREPLY=($(compgen -W {shlex.quote(listed)} -- "$current")) ;;')
    valued, plain = "|".join(_TAKES_VALUE), "|".join(_TAKES_NONE)
    return _BASH.format(valued=valued, plain=plain, known=known, values="\n".join(values), words="\n".join(words))


def _zsh_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")


def zsh() -> str:
    """For zsh's compsys."""
    lines = ["#compdef scitq", "# made by `scitq completion zsh`", "_scitq() {", "  local -a typed places found", "  local -i at"]
    lines += [
        "  for (( at = 2; at < CURRENT; at++ )); do",
        "    case $words[at] in",
        f"      {'|'.join(_TAKES_VALUE)}) (( at += 1 )) ;;",
        f"      {'|'.join(_TAKES_NONE)}|{'|'.join(f'{flag}=*' for flag in _TAKES_VALUE)}) ;;",
        "      -*) break ;;",
        "      *) typed+=$words[at]; places+=$(( at - 1 )) ;;",
        "    esac",
        "  done",
        '  case "${typed[*]}" in',
    ]
    for path in _groups():
        shown = " ".join(shlex.quote(f"{word}:{_zsh_text(text)}") for word, text in table.children(path).items())
        lines.append(f"    {shlex.quote(' '.join(path))}) found=({shown}); _describe 'command' found ;;")
    for command in table.COMMANDS:
        arguments = []
        for option in options_of(command):
            value = ""
            if option.takes_value:
                value = f":value:({' '.join(option.choices)})" if option.choices else ":value:_files"
            arguments.append(shlex.quote(f"*{option.flag}[{_zsh_text(option.help)}]{value}"))
        extra = positionals_of(command)
        if extra:
            arguments.append(shlex.quote(f"1:word:({' '.join(extra)})"))
        last = f"$places[{len(command.path)}]"
        shift = f"shift {last} words; (( CURRENT -= {last} ))"
        lines.append(f"    {shlex.quote(' '.join(command.path))}*) {shift}; _arguments {' '.join(arguments)} ;;")
    # Read as a file of $fpath it is the function's body; sourced, it declares the function.
    lines += ["  esac", "}", 'if [ "$funcstack[1]" = _scitq ]; then _scitq "$@"; else compdef _scitq scitq; fi', ""]
    return "\n".join(lines)


def fish() -> str:
    """For fish 3 and later."""
    lines = ["# fish completion of scitq; made by `scitq completion fish`", "complete -c scitq -f"]
    lines += [
        "function __scitq_path",
        "    set -l path",
        "    set -l is_value",
        "    for word in (commandline -opc)[2..-1]",
        "        if set -q is_value[1]",
        "            set is_value",
        "            continue",
        "        end",
        "        switch $word",
        f"            case {' '.join(_TAKES_VALUE)}",
        "                set is_value yes",
        f"            case {' '.join(_TAKES_NONE)} " + " ".join(f"'{flag}=*'" for flag in _TAKES_VALUE),
        "            case '-*'",
        "                break",
        "            case '*'",
        "                set -a path $word",
        "        end",
        "    end",
        '    test "$path" = "$argv"',
        "end",
    ]
    for path in _groups():
        where = shlex.quote(f"__scitq_path {' '.join(path)}".rstrip())
        lines += [f"complete -c scitq -n {where} -a {word} -d {shlex.quote(text)}" for word, text in table.children(path).items()]
        lines += [f"complete -c scitq -n {where} -l {flag[2:]}{' -r -F' if flag in _TAKES_VALUE else ''}" for flag in COMMON]
    for command in table.COMMANDS:
        where = shlex.quote(f"__scitq_path {' '.join(command.path)}")
        for option in options_of(command):
            value = ""
            if option.takes_value:
                value = f" -x -a {shlex.quote(' '.join(option.choices))}" if option.choices else " -r -F"
            lines.append(f"complete -c scitq -n {where} -l {option.flag[2:]}{value} -d {shlex.quote(option.help)}")
        lines += [f"complete -c scitq -n {where} -a {word}" for word in positionals_of(command)]
    return "\n".join(lines) + "\n"


def run(context: Context) -> int:
    """Needs no server."""
    script = {"bash": bash, "zsh": zsh, "fish": fish}[context.options.shell]()
    context.out.text(script.rstrip("\n"))
    return EXIT_OK
