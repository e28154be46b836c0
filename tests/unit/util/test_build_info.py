"""What scitq says it is made of."""

from __future__ import annotations

import sys
import types

import pytest

import scitq
from scitq.util import build_info


def test_the_record_of_the_one_file_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    record = types.ModuleType("scitq_build")
    record.__dict__.update(COMMIT="abc", LIBRARIES={"apsw": "3"})
    monkeypatch.setitem(sys.modules, "scitq_build", record)
    found = build_info.build_info()
    assert (found.version, found.commit, found.one_file, found.libraries) == (scitq.__version__, "abc", True, {"apsw": "3"})


def test_without_a_record_the_installation_is_asked() -> None:
    found = build_info.build_info()
    assert not found.one_file
    assert found.version == scitq.__version__
    assert list(found.libraries) == sorted(found.libraries)
