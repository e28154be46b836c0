import pytest

from scitq.errors import UsageError
from scitq.util.units import parse_bytes, parse_duration_s


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1h30m", 5400), ("7d", 604800), ("1-02:03:04", 93784), ("02:03", 7380), ("500ms", 0.5)]
)
def test_durations(text, seconds):
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", " ", "-1s", "1x", "s", "9" * 20, "9" * 400, "9" * 400 + ":00", "99999999999999-00:00", "1.5.5s"])
def test_what_is_no_duration(text):
    with pytest.raises(UsageError):
        parse_duration_s(text)


@pytest.mark.parametrize(("text", "count"), [("500", 500), ("10k", 10_000), ("1.5GiB", 1610612736), ("1 TB", 10**12)])
def test_sizes(text, count):
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "-1", "G", "1e9", "9" * 400, "9" * 400 + "PiB", "16384PiB"])
def test_what_is_no_size(text):
    with pytest.raises(UsageError):
        parse_bytes(text)
