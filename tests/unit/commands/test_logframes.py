import struct

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scitq.commands.logframes import Frames

RECORDS = st.lists(st.tuples(st.integers(1, 3), st.binary(max_size=50)), max_size=20)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(RECORDS, st.lists(st.integers(1, 40), min_size=1))
def test_any_division_gives_the_same(records, cuts):
    data = b"".join(struct.pack(">BI", stream, len(payload)) + payload for stream, payload in records)
    frames, found, start = Frames(), [], 0
    position = 0
    while start < len(data):
        step = cuts[position % len(cuts)]
        found += frames.feed(data[start : start + step])
        start += step
        position += 1
    for stream in (1, 2, 3):
        assert b"".join(part for one, part in found if one == stream) == b"".join(payload for one, payload in records if one == stream)
    assert merged(found) == merged([record for record in records if record[1]])


def merged(parts):
    whole = []
    for stream, data in parts:
        if whole and whole[-1][0] == stream:
            whole[-1] = (stream, whole[-1][1] + data)
        else:
            whole.append((stream, data))
    return whole
