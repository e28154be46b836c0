"""What every file of the repository keeps to."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a clone")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def test_links_between_pages_lead_somewhere():
    dead = []
    for page in (path for path in tracked() if path.suffix == ".md"):
        text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if not re.match(r"[a-z]+:|#", target) and not (page.parent / target.partition("#")[0]).exists():
                dead.append(f"{page.relative_to(ROOT)}: {target}")
    assert dead == []


def test_every_dependency_is_explained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project.get("optional-dependencies", {}).values() for one in extra)]
    lines = (ROOT / "build/requirements.txt").read_text().splitlines()
    wanted += [line for line in lines if line and not line.startswith("#")]
    explained = (ROOT / "docs/dependencies.md").read_text()
    names = {re.match(r"[\w.-]+", one)[0] for one in wanted}
    assert sorted(name for name in names if not re.search(rf"\b{re.escape(name)}\b", explained)) == []


def test_the_scripts_of_the_makefile_exist():
    named = set(re.findall(r"\bbuild/[\w.]+", (ROOT / "Makefile").read_text()))
    assert sorted(name for name in named if not (ROOT / name).is_file()) == []


def test_build_is_a_folder_of_scripts():
    assert not (ROOT / "build/__init__.py").exists()
    assert not list((ROOT / "build").glob("lib"))
