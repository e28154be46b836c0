"""What a task says when its data can't come or go: networks, servers and credentials that fail, and nothing left behind (issue "Data")."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from tests.lib.flaky import FlakyProxy
from tests.lib.site import Site, wait_until
from tests.lib.webserver import WebServer


@pytest.fixture(scope="module")
def proxy(s3_service) -> Iterator[FlakyProxy]:
    with FlakyProxy.running(s3_service.endpoint) as made:
        yield made


@pytest.fixture(scope="module")
def site(tmp_path_factory, scitq_argv, s3_service, proxy) -> Iterator[Site]:
    entry = s3_service.rclone()
    entries = {
        "s3": entry,
        "cut": entry | {"endpoint": f"http://{proxy.address}"},
        "wrong": entry | {"secret_access_key": "no-such-secret"},
        "nowhere": entry | {"endpoint": "http://127.0.0.1:1"},
    }
    with Site(tmp_path_factory.mktemp("faults"), scitq_argv, rclone=entries, worker={"min_free_disk": "10M"}) as made:
        made.agent(concurrency=8)
        yield made


def test_every_fault_is_the_reason_of_its_task_and_others_go_on(site, proxy, s3_service):
    folder = f"ready/{uuid.uuid4().hex[:8]}"
    s3_service.client().put_object(Bucket="ready", Key=f"{folder.partition('/')[2]}/x", Body=b"1" * 2_000_000)
    proxy.cut_down = [100] * 10_000
    with WebServer.running() as web:
        web.fail = 10**6
        sources = {
            f"cut://{folder}/x": ("broke", "closed", "cut", "connection", "ended"),
            f"wrong://{folder}/x": ("refused",),
            f"nowhere://{folder}/x": ("refused", "connect"),
            f"http://{web.address}/x": ("503", "busy", "failed"),
            f"s3://none-{uuid.uuid4().hex[:8]}/x": ("no such",),
        }
        tasks = {(kind, uri): site.create("true", [f"--{kind}", uri]) for uri in sources for kind in ("input", "resource")}
        well = site.create("wc -c < $INPUT/x", ["--shell", "sh", "--input", f"s3://{folder}/x"])
        lost = {uri: site.create("echo r > $OUTPUT/r", ["--shell", "sh", "--output", uri]) for uri in ("wrong://ready/o", "nowhere://b/o")}
        assert site.wait_status(well, "SF") == "S"
        for (_kind, uri), task in tasks.items():
            assert site.wait_status(task, "SF") == "F"
            reason = site.show(task)["row"]["reason"]
            assert uri in reason
            assert any(word in reason for word in sources[uri]), reason
            assert "no-such-secret" not in reason + site.output(task)
        for uri, task in lost.items():
            assert site.wait_status(task, "SF") == "F"
            reason = site.show(task)["row"]["reason"]
            assert "upload" in reason
            assert uri in reason
    proxy.cut_down = []
    again = site.create("wc -c < $RESOURCE/x", ["--shell", "sh", "--resource", f"cut://{folder}/x"])
    assert site.wait_status(again, "SF") == "S"
    work = site.folder / "work0"
    failed = [f"{task}-*/input/*" for task in tasks.values()]
    wait_until(lambda: not any(list((work / "tasks").glob(pattern)) for pattern in failed), "the inputs' clean-up")
    wait_until(lambda: not list((work / "cache/staging").iterdir()), "the cache's clean-up")
    assert len(list((work / "cache/entries").iterdir())) == 1


def test_out_10_u_and_v_are_seen_while_an_upload_takes_its_time(site):
    for status, letter in ((0, "U"), (1, "V")):
        task = site.create(f"echo r > $OUTPUT/r; exit {status}", ["--shell", "sh", "--output", "nowhere://b/o"])
        assert site.wait_status(task, "SF") == "F"
        ways = [change["status"] for change in site.show(task)["changes"]]
        assert letter in ways
        assert ways[-1] == "F"
