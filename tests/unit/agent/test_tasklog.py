"""The framed log of an attempt."""

from __future__ import annotations

from scitq.agent.tasklog import HEADER, NOTE, STDERR, STDOUT, LogWriter


def records(data: bytes) -> list[tuple[int, bytes]]:
    found, position = [], 0
    while position < len(data):
        stream, length = HEADER.unpack_from(data, position)
        position += HEADER.size
        found.append((stream, data[position : position + length]))
        position += length
    return found


def test_small_output_needs_no_file(tmp_path):
    log = LogWriter(tmp_path / "log", 1000)
    log.write(STDOUT, b"a\0\r\xff")
    log.write(STDERR, b"b")
    assert records(log.take()) == [(STDOUT, b"a\0\r\xff"), (STDERR, b"b")]
    assert log.size == len(log.take())
    assert not (tmp_path / "log").exists()


def test_spilled_output_is_in_the_file_and_counted_once(tmp_path):
    log = LogWriter(tmp_path / "log", 1 << 30)
    log.write(STDOUT, b"x" * 3_000_000)
    log.spill()
    log.write(STDERR, b"y")
    log.spill()
    log.close()
    data = (tmp_path / "log").read_bytes()
    assert len(data) == log.size
    assert b"".join(part for stream, part in records(data) if stream == STDOUT) == b"x" * 3_000_000


def test_log_07_what_is_over_the_cap_is_dropped_with_one_note(tmp_path):
    log = LogWriter(tmp_path / "log", 10)
    for _ in range(4):
        log.write(STDOUT, b"123456")
    found = records(log.take())
    assert b"".join(part for stream, part in found if stream == STDOUT) == b"1234561234"
    assert [stream for stream, _ in found].count(NOTE) == 1


def test_a_torn_record_is_cut_off_when_the_log_is_gone_on_with(tmp_path):
    path = tmp_path / "log"
    log = LogWriter(path, 1000)
    log.write(STDOUT, b"whole")
    log.write(STDERR, b"err")
    log.spill()
    log.close()
    whole = path.read_bytes()
    path.write_bytes(whole + HEADER.pack(STDOUT, 100) + b"half")
    again = LogWriter(path, 1000, resume=True)
    assert (again.size, again.seen[STDOUT], again.seen[STDERR]) == (len(whole), 5, 3)
    again.write(STDOUT, b"more")
    again.spill()
    again.close()
    assert records(path.read_bytes()) == [(STDOUT, b"whole"), (STDERR, b"err"), (STDOUT, b"more")]
