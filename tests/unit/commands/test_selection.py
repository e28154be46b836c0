import pytest

from scitq.commands.selection import merged, parse_ranges, ranges_of
from scitq.errors import UsageError


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("7", [(7, 7, 1)]),
        ("1,4", [(1, 1, 1), (4, 4, 1)]),
        ("3-9", [(3, 9, 1)]),
        ("3-99:2", [(3, 99, 2)]),
        (" 1 , 2-3 ", [(1, 1, 1), (2, 3, 1)]),
    ],
)
def test_selections(text, ranges):
    assert parse_ranges(text) == ranges


@pytest.mark.parametrize("text", ["", "x", "1,", "-3", "9-3", "1-3:0", "1--3", "1:2", "²", "1" * 30])
def test_what_is_no_selection(text):
    with pytest.raises(UsageError):
        parse_ranges(text)


def test_last_among_others():
    assert ranges_of(["last"]) == (True, [])
    assert ranges_of(["1", "last,3-4"]) == (True, [(1, 1, 1), (3, 4, 1)])
    assert ranges_of(["5"]) == (False, [(5, 5, 1)])


def test_neighbours_are_joined_and_strides_are_left():
    singles = [(one, one, 1) for one in (9, 3, 2, 1, 3, 7)]
    assert merged(singles) == [(1, 3, 1), (7, 7, 1), (9, 9, 1)]
    assert merged([(1, 9, 1), (4, 5, 1), (10, 12, 1), (20, 30, 2)]) == [(1, 12, 1), (20, 30, 2)]
    assert merged([]) == []
