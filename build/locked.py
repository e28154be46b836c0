"""Is every package of packaging/requirements.lock installed in exactly that version? Says what is not, on stderr; status 1 then."""

import importlib.metadata
import sys
from pathlib import Path

from packaging.requirements import Requirement


def locked() -> dict[str, str]:
    """Name and version of every package that the lock asks for on this platform."""
    lines = (Path(__file__).parents[1] / "packaging" / "requirements.lock").read_text().splitlines()
    wanted = [Requirement(line.rstrip("\\ ")) for line in lines if "==" in line and line[0].isalnum()]
    return {one.name: str(one.specifier).removeprefix("==") for one in wanted if one.marker is None or one.marker.evaluate()}


def main() -> int:
    """0 when all is as locked."""
    bad = 0
    for name, version in locked().items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "absent"
        if found != version:
            print(f"{name}: {found}, the lock says {version}", file=sys.stderr)
            bad = 1
    return bad


if __name__ == "__main__":
    sys.exit(main())
