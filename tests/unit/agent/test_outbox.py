"""What waits for the server's acknowledgement, and in which order it goes."""

from __future__ import annotations

import pytest

from scitq.agent.outbox import MOST_LOG_BYTES, Outbox
from scitq.model.lifecycle import TaskEvent
from scitq.protocol.messages.agent import Reported, Stats


class Server:
    """The other end, by hand."""

    def __init__(self) -> None:
        self.flying = []
        self.settled = []
        self.stale = []
        self.outbox = Outbox(lambda *call: self.flying.append(call), self.settled.append, self.stale.append)

    def next(self):
        assert len(self.flying) == 1
        return self.flying[0][0]()

    def answer(self, **more) -> None:
        report = self.next()
        offsets = [(chunk.task_id, chunk.attempt, chunk.offset + len(chunk.data)) for chunk in report.logs]
        _, answered, _ = self.flying.pop()
        answered(Reported(seq=report.seq, **({"log_offsets": offsets} | more)))

    def refuse(self) -> None:
        self.flying.pop()[2]()


@pytest.fixture
def server():
    return Server()


KEY = (1, 1)


def events(report) -> list[tuple[int, str]]:
    return [(event.task_id, event.event) for event in report.events]


def test_one_report_is_under_way_and_what_comes_meanwhile_goes_together(server):
    server.outbox.add(KEY, TaskEvent.ACCEPT)
    server.outbox.flush()
    server.outbox.add(KEY, TaskEvent.FETCH)
    server.outbox.add((2, 1), TaskEvent.ACCEPT)
    server.outbox.add(KEY, TaskEvent.FETCHED)
    server.outbox.flush()
    assert events(server.next()) == [(1, "accept")]
    server.answer()
    assert events(server.next()) == [(1, "fetch"), (1, "fetched"), (2, "accept")]
    server.answer()
    assert server.outbox.is_empty


def test_st_02_an_end_waits_for_the_last_of_its_log(server, tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"x" * (MOST_LOG_BYTES + 1000))
    log = server.outbox.log(KEY, path)
    log.file_bytes, log.tail = MOST_LOG_BYTES + 1000, b"tail"
    server.outbox.log_changed(KEY)
    server.outbox.add(KEY, TaskEvent.ENDED_WELL, is_final=True)
    server.outbox.add((2, 1), TaskEvent.ACCEPT)
    server.outbox.flush()
    got, ended = b"", False
    while not ended:
        report = server.next()
        for chunk in report.logs:
            assert chunk.offset == len(got)
            got += chunk.data
        ended = (1, "ended_well") in events(report)
        assert ended == (len(got) == MOST_LOG_BYTES + 1004)
        assert server.settled == []
        server.answer()
    assert got == b"x" * (MOST_LOG_BYTES + 1000) + b"tail"
    assert server.settled == [KEY]


def test_log_pieces_that_the_server_does_not_have_go_again(server, tmp_path):
    log = server.outbox.log(KEY, tmp_path / "log")
    log.tail = b"0123456789"
    server.outbox.log_changed(KEY)
    server.outbox.flush()
    server.answer(log_offsets=[(1, 1, 4)])
    assert [(chunk.offset, chunk.data) for chunk in server.next().logs] == [(4, b"456789")]


def test_stale_attempts_are_told(server):
    server.outbox.add(KEY, TaskEvent.START)
    server.outbox.flush()
    server.answer(stale=[KEY])
    assert server.stale == [KEY]


def test_a_forgotten_attempt_is_not_spoken_of(server):
    server.outbox.add(KEY, TaskEvent.START)
    server.outbox.log(KEY, None).tail = b"x"
    server.outbox.log_changed(KEY)
    server.outbox.forget(KEY)
    server.outbox.flush()
    assert server.flying == []


def test_a_refused_report_is_said_again_with_the_next_heartbeat(server):
    server.outbox.log(KEY, None).tail = b"xyz"
    server.outbox.log_changed(KEY)
    server.outbox.add(KEY, TaskEvent.ENDED_WELL, is_final=True)
    server.outbox.flush()
    server.refuse()
    server.outbox.flush()
    assert server.flying == []
    server.outbox.beat(Stats(), [KEY], None)
    server.outbox.flush()
    report = server.next()
    assert events(report) == [(1, "ended_well")]
    assert [chunk.data for chunk in report.logs] == [b"xyz"]
    assert report.held == [KEY]
    server.answer()
    assert server.settled == [KEY]


def test_ages_are_those_of_the_sending(server, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("scitq.agent.outbox.clock.monotonic_s", lambda: now[0])
    server.outbox.add(KEY, TaskEvent.START)
    now[0] += 2
    server.outbox.flush()
    assert server.next().events[0].age_ms == 2000
    now[0] += 3600
    assert server.next().events[0].age_ms == 3_602_000


def test_progress_and_heartbeats_travel_along(server):
    server.outbox.progress(KEY, lambda: (5, 10))
    server.outbox.flush()
    assert server.flying == []
    server.outbox.beat(Stats(running=1), [KEY], 12.5)
    server.outbox.flush()
    report = server.next()
    assert (report.progress, report.stats.running, report.seconds_left) == ([(1, 1, 5, 10)], 1, 12.5)
