import json

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
