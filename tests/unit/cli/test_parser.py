import importlib

import pytest

from scitq.cli import parser
from scitq.commands import table
from scitq.errors import UsageError


@pytest.mark.parametrize("command", table.COMMANDS, ids=lambda command: "_".join(command.path))
def test_every_command_has_a_module_and_help(command):
    module = importlib.import_module(f"scitq.commands.{command.module}")
    assert callable(module.run)
    text = parser.make_parser(command).format_help()
    assert text.startswith(f"usage: scitq {' '.join(command.path)}")
    for flag in ("--json", "--quiet", "--server", "--token-file", "--config", "--help"):
        assert flag in text
    assert command.help.endswith(".")


def test_paths_are_unique_and_groups_known():
    paths = [command.path for command in table.COMMANDS]
    assert len(set(paths)) == len(paths)
    for path in paths:
        for length in range(1, len(path)):
            assert path[:length] in table.GROUPS
            assert path[:length] not in paths


def test_every_option_has_help():
    for command in table.COMMANDS:
        for action in parser.make_parser(command)._actions:
            assert action.help, (command.path, action.option_strings)


def test_decision_7_step_and_step_id_are_one_flag_wherever_a_step_is_meant():
    for command in table.COMMANDS:
        for action in parser.make_parser(command)._actions:
            if command.path != ("recruiter", "simulate"):  # whose --step is a workload, not a step
                assert ("--step" in action.option_strings) == ("--step-id" in action.option_strings), (command.path, action.option_strings)


def test_walking():
    assert parser.walk(["task", "list", "--limit", "3"]) == (("task", "list"), ["--limit", "3"], False, False)
    assert parser.walk(["--json", "--server", "x", "task", "--quiet", "list"]).rest == ["--json", "--server", "x", "--quiet"]
    assert parser.walk(["task", "-help"]).wants_help
    assert parser.walk(["--version"]).wants_version
    assert parser.walk(["task"]).path == ("task",)
    for words in (["tsk"], ["task", "lst"], ["--jsn", "task"], ["--server"], ["task", "--version"]):
        with pytest.raises(UsageError):
            parser.walk(words)


def options(*words):
    command = table.find(("task", "list"))
    assert command is not None
    return parser.make_parser(command).parse(words)


def test_values_that_look_like_flags():
    assert options("--command", "--limit").command == "--limit"
    assert options("--command=--limit", "--limit", "3").limit == 3
    assert options("--command", "-help").command == "-help"
    assert options("--command", "").command == ""
    assert options("--command", "a=b=c").command == "a=b=c"


@pytest.mark.parametrize(
    "words", [["--limit"], ["--limit", "1", "--limit=2"], ["--lim", "1"], ["stray"], ["--json=1"], ["--step", "1", "--step-id", "1"]]
)
def test_usage_errors(words):
    with pytest.raises(UsageError, match="scitq task list --help"):
        options(*words)


def test_help_leaves_with_status_0(capsys):
    for flag in parser.HELP_FLAGS:
        with pytest.raises(SystemExit) as left:
            options(flag)
        assert left.value.code == 0
    assert "usage: scitq task list" in capsys.readouterr().out


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_cli_02_the_help_of_groups_fits_the_terminal_and_loses_nothing(monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", "10000")
    whole = {path: parser.group_help(path).split() for path in table.GROUPS}
    monkeypatch.setenv("COLUMNS", columns)
    for path, words in whole.items():
        text = parser.group_help(path)
        assert text.split() == words
        assert max(map(len, text.splitlines())) <= max(60, int(columns) - 2)
