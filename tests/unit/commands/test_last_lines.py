import pytest

from scitq.commands.task_output import last_lines


@pytest.mark.parametrize(
    ("data", "count", "wanted"),
    [
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\n", 5, b"a\nb\n"),
        (b"a\nb\n", 0, b""),
        (b"", 3, b""),
        (b"\n\n\n", 2, b"\n\n"),
        (b"abc", 1, b"abc"),
    ],
)
def test_last_lines(data, count, wanted):
    assert last_lines(data, count) == wanted
