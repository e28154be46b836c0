"""What every suite has: `--exe`, the real services, and signals as a terminal gives them."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.lib import services
from tests.lib.services import (
    ApptainerService,
    AzuriteService,
    DockerService,
    GcsService,
    RegistryService,
    S3Service,
    SlurmService,
    WebdavService,
)

# A shell that starts the tests in the background has SIGINT ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--exe", metavar="PATH", default=None, help="the scitq to test: an executable; by default this python's own")


@pytest.fixture(scope="session")
def scitq_argv(request: pytest.FixtureRequest) -> list[str]:
    """The words that start the scitq under test."""
    exe = request.config.getoption("--exe")
    if exe is None:
        return [sys.executable, "-m", "scitq"]
    path = Path(exe).resolve()
    if not path.is_file():
        pytest.exit(f"--exe {exe}: no such file", returncode=4)
    return [str(path)]


@pytest.fixture(scope="session")
def docker_service() -> DockerService:
    return services.service("docker")


@pytest.fixture(scope="session")
def s3_service() -> S3Service:
    return services.service("s3")


@pytest.fixture(scope="session")
def azurite_service() -> AzuriteService:
    return services.service("azurite")


@pytest.fixture(scope="session")
def gcs_service() -> GcsService:
    return services.service("gcs")


@pytest.fixture(scope="session")
def webdav_service() -> WebdavService:
    return services.service("webdav")


@pytest.fixture(scope="session")
def registry_service() -> RegistryService:
    return services.service("registry")


@pytest.fixture(scope="session")
def slurm_service() -> SlurmService:
    return services.service("slurm")


@pytest.fixture(scope="session")
def apptainer_service() -> ApptainerService:
    return services.service("apptainer")
