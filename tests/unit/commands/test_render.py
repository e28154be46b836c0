import fcntl
import json
import os
import struct
import sys
import termios

import msgspec
import pytest

from scitq.commands.render import Column, Output, neutral, plain, to_json


class Row(msgspec.Struct, omit_defaults=True):
    id: int
    name: str = ""
    rest: list[int] = []


COLUMNS = (Column("id", lambda row: str(row.id), is_number=True), Column("name", lambda row: row.name))


def test_defaults_are_in_the_json():
    assert plain(Row(1)) == {"id": 1, "name": "", "rest": []}
    assert json.loads(to_json([Row(1, "é")])) == [{"id": 1, "name": "é", "rest": []}]


@pytest.mark.parametrize(
    ("text", "shown"), [("a\x1b[0m", "a\\x1b[0m"), ("a\nb\tc\r", "a\\nb\\tc\\r"), ("é→", "é→"), ("\u202ex\x9b", "?x\\x9b")]
)
def test_control_characters(text, shown):
    assert neutral(text) == shown


def test_three_forms_of_a_list(capsys):
    rows = [Row(1, "a"), Row(22, "b\n")]
    Output().rows(rows, COLUMNS)
    assert capsys.readouterr().out == "ID  NAME\n 1  a\n22  b\\n\n"
    Output(is_quiet=True).rows(rows, COLUMNS)
    assert capsys.readouterr().out == "1\n22\n"
    Output(is_json=True).rows(rows, COLUMNS)
    assert [row["id"] for row in json.loads(capsys.readouterr().out)] == [1, 22]
    Output(is_json=True).rows([], COLUMNS)
    assert json.loads(capsys.readouterr().out) == []


def _in_a_window(columns, rows, given, monkeypatch):
    """The lines of a table in a terminal's window of so many columns."""
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(slave, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("NO_COLOR", "1")
        Output().rows(rows, given)
        stream.flush()
        monkeypatch.undo()
        shown = os.read(master, 65536).decode()
    os.close(master)
    return shown.splitlines()


def test_stt_02_a_table_too_wide_for_its_window_loses_nothing(monkeypatch):
    rows = [Row(1, "a" * 30), Row(2)]
    three = (*COLUMNS, Column("more", lambda row: "b" * 30))
    assert _in_a_window(80, rows, three, monkeypatch)[1] == f" 1  {'a' * 30}  {'b' * 30}"
    assert _in_a_window(50, rows, three, monkeypatch)[1] == f" 1  {'a' * 30}  {'b' * 30}", "the terminal wraps the last column"
    assert _in_a_window(30, rows, three, monkeypatch) == [
        "id:   1",
        f"name: {'a' * 30}",
        f"more: {'b' * 30}",
        "",
        "id:   2",
        f"more: {'b' * 30}",
    ]


def test_lst_11_in_a_terminal_a_last_column_that_may_be_cut_is_cut(monkeypatch):
    columns = (COLUMNS[0], Column("command", lambda row: row.name, may_be_cut=True))
    assert _in_a_window(20, [Row(1, "a" * 30)], columns, monkeypatch) == ["ID  COMMAND", " 1  " + "a" * 15 + "…"]
