"""An agent that is not root with Docker: what a container's root left is uploaded and removed all the same (contract OUT-7)."""

from __future__ import annotations

import io
import os
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.lib.podman import as_user, give, ordinary_user
from tests.lib.services import DockerService
from tests.lib.site import Site, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("ordinary-user")]


@contextmanager
def image_without_tools(docker: DockerService) -> Iterator[str]:
    """An image that holds a shell and nothing else: its built-ins are all that a command can use."""
    tag = f"scitq-scratch-{uuid.uuid4().hex[:8]}"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add("/bin/busybox", "sh")
    docker.command("import", "-", tag, data=buffer.getvalue())
    try:
        yield tag
    finally:
        docker.command("rmi", "-f", tag)


CLOSED = "mkdir /output/closed; echo secret > /output/closed/file; chmod 600 /output/closed/file; chmod 555 /output/closed; id -u"


def test_out_07_closed_files_of_a_containers_root_are_uploaded_and_removed(
    tmp_path: Path, scitq_argv: list[str], docker_service: DockerService
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    with (
        ordinary_user("scitqtest") as user,
        Site(tmp_path / "site", scitq_argv, rclone={"store": {"type": "local", "root": str(store)}}) as site,
    ):
        home = tmp_path / "home"
        home.mkdir()
        (home / "token").write_text(site.ok("user token create --worker --name plain").out)
        (home / "token").chmod(0o600)
        give(home, user)
        give(store, user)
        group = os.stat(docker_service.host.removeprefix("unix://")).st_gid  # noqa: PTH116 - only the number
        words = as_user(user, group)
        site.argv = [*words, *scitq_argv]
        work = home / "work"
        with (site.folder / "agent.log").open("wb") as log:
            agent = site.start(
                f"agent --token-file {home}/token --work-dir {work} --name plain --runtime docker",
                stdout=log,
                stderr=log,
                env={"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "TMPDIR": str(home)},
                cwd=home,
            )
        site.argv = list(scitq_argv)
        site.agents.append(agent)
        wait_until(lambda: [row for row in site.workers() if row["status"] == "ready"], "the worker")
        task = site.create(CLOSED, ["--shell", "sh", "--output", "store://b/r/"], container="alpine")
        site.wait_status(task, "SF")
        assert site.show(task)["row"]["status"] == "S", (site.show(task), site.output(task))
        assert site.output(task) == "0\n"
        assert [file.read_text() for file in store.rglob("file")] == ["secret\n"]
        wait_until(lambda: not list((work / "tasks").iterdir()), "the removal of the task's folder")
        with image_without_tools(docker_service) as bare:
            task = site.create(CLOSED.replace("secret", "bare"), ["--shell", "/sh", "--output", "store://b/s/"], container=bare)
            site.wait_status(task, "SF")
            assert site.show(task)["row"]["status"] == "S", (site.show(task), site.output(task))
            assert [file.read_text() for file in (store / "b/s").rglob("file")] == ["bare\n"]
            wait_until(lambda: not list((work / "tasks").iterdir()), "the removal of the other task's folder")
        site.close()
