"""Which container runtime this worker uses (`scitq agent --runtime`)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from scitq.agent.executors.apptainer import ApptainerExecutor
from scitq.agent.executors.bare import BareExecutor
from scitq.agent.executors.base import Executor, Sink
from scitq.agent.executors.docker import DockerExecutor
from scitq.agent.executors.podman import PodmanExecutor
from scitq.errors import ScitqError, UnavailableError, UsageError
from scitq.util import paths

logger = logging.getLogger(__name__)


def container_executor(runtime: str, uid: str, work_dir: Path, bare: BareExecutor, sink: Sink) -> Executor | None:
    """The one that `runtime` names, or the first that answers for `auto`; None for `bare` and when `auto` finds none.

    Raises ScitqError when the named one does not answer.
    """
    makers: dict[str, Callable[[], Executor]] = {
        **_engines(uid, work_dir, sink),
        "apptainer": lambda: ApptainerExecutor(paths.cache_folder() / "images", work_dir, bare, sink),
    }
    if runtime == "bare":
        return None
    if runtime != "auto":
        if runtime not in makers:
            raise UsageError(f"unknown runtime {runtime!r}; possible are auto, {', '.join(makers)} and bare")
        try:
            return makers[runtime]()
        except UnavailableError as error:
            # a status of its own: 4 means that the server is away
            raise ScitqError(f"--runtime {runtime}: {error.message}; `scitq doctor` looks at what there is") from None
    passed_over: list[str] = []
    for name, make in makers.items():
        try:
            found = make()
        except ScitqError as error:
            passed_over.append(f"{name}: {error.message}")
        else:
            logger.info("containers run by %s%s", name, f" ({'; '.join(passed_over)})" if passed_over else "")
            return found
    logger.warning("no container runtime answers, so only bare tasks are taken (%s)", "; ".join(passed_over))
    return None


def engine(runtime: str, uid: str, work_dir: Path, sink: Sink) -> DockerExecutor | None:
    """What keeps the containers of an agent that was started with this `runtime`; None where they are plain processes, or there are none.

    Raises ScitqError when the named one does not answer.
    """
    for name, make in _engines(uid, work_dir, sink).items():
        if runtime == name:
            return make()
        if runtime == "auto":
            with suppress(ScitqError):
                return make()
    return None


def _engines(uid: str, work_dir: Path, sink: Sink) -> dict[str, Callable[[], DockerExecutor]]:
    return {"docker": lambda: DockerExecutor(uid, sink), "podman": lambda: PodmanExecutor(uid, work_dir, sink)}
