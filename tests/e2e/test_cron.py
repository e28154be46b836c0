"""Issue 3's measure: what a cron user's script does, under `env -i` and `LANG=C`; and the crontab example of docs/batches.md."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from tests.lib.site import SOURCE, Site

pytestmark = pytest.mark.xdist_group("cron")
SCRIPT = Path(__file__).with_name("cron_user.sh")
PAGE = Path(__file__).resolve().parents[2] / "docs/batches.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory, scitq_argv):
    with Site(tmp_path_factory.mktemp("cron"), scitq_argv) as site:
        site.agent(concurrency=2)
        (site.folder / "token").touch(0o600)
        (site.folder / "token").write_text(site.shell("nora", "pw").ok("user token create --ttl 365d --name backup").out)
        yield site


def cron(site: Site, command: list[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run as cron does: no terminal, a session of its own, next to no environment."""
    environment = {
        "HOME": str(site.home),
        "PATH": "/usr/bin:/bin",
        "LANG": "C",
        "SHELL": "/bin/sh",
        "SCITQ_SERVER": site.environment["SCITQ_SERVER"],
        "PYTHONPATH": str(SOURCE),
    }
    words = ["env", "-i", *(f"{name}={value}" for name, value in (environment | variables).items()), *command]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False, start_new_session=True)


def test_a_cron_users_script(site, tmp_path):
    results = tmp_path / "rés ultats"
    results.mkdir()
    lines = [
        {"command": f"echo höre {i}", "shell": "sh", "key": f"nightly-{i}", "label": {"batch": "nightly"}, "name": f"n{i}"}
        for i in range(5)
    ]
    lines[3]["command"] = f"echo broken; test -e {shlex.quote(str(results / 'repaired'))}"
    batch = tmp_path / "batch.jsonl"
    batch.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    done = cron(
        site,
        ["sh", str(SCRIPT)],
        SCITQ=" ".join(map(shlex.quote, site.argv)),
        TOKEN_FILE=str(site.folder / "token"),
        BATCH=str(batch),
        RESULTS=str(results),
    )
    assert done.returncode == 0, done
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    logs = sorted(file.read_text() for file in results.glob("*.log"))
    assert logs == ["broken\n", *(f"höre {i}\n" for i in (0, 1, 2, 4))]
    assert len((results / "retried").read_text().split()) == 1
    assert {row["user"] for row in site.tasks("--label batch=nightly")} == {"nora"}


def test_the_crontab_line_of_the_docs(site, tmp_path):
    (line,) = re.findall(r"^30 3 \* \* \* +(.*)$", PAGE.read_text(), re.MULTILINE)
    (site.home / ".scitq-token").write_text((site.folder / "token").read_text())
    (site.home / ".scitq-token").chmod(0o600)
    (site.home / "nightly.jsonl").write_text('{"command": "echo by cron", "key": "docs-1"}\n')
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "scitq").write_text(f'#!/bin/sh\nexec {" ".join(map(shlex.quote, site.argv))} "$@"\n')
    (folder / "scitq").chmod(0o755)
    done = cron(site, ["sh", "-c", line.replace("\\%", "%")], PATH=f"{folder}:/usr/bin:/bin")
    assert done.returncode == 0, done
    assert done.stderr == ""
    (row,) = site.tasks("--command 'echo by cron'")
    assert row["status"] == "S"
