"""What is refused at creation, before anything is stored."""

from __future__ import annotations

import pytest

from scitq.errors import UsageError
from scitq.model.task import TaskSpec
from scitq.model.uri_rules import MOST_URIS, check_uris

KNOWN = ("s3", "my-azure.1", "file", "https")


def spec(**fields):
    return TaskSpec(container="alpine", command="true", **fields)


def test_good_uris_pass():
    check_uris(
        spec(
            inputs=("s3://b/x", "s3://b/*.dat|mv:in", "https://h/x?a=*"),
            resources=("my-azure.1://c/r.tgz|untar|mv:ref",),
            output="s3://b/out",
            publish="my-azure.1://c/p/",
            skip_if_exists=True,
        ),
        KNOWN,
    )


def test_res_01_unknown_scheme_is_refused_with_the_known_ones_listed():
    for fields in ({"inputs": ("gs://b/x",)}, {"resources": ("gs://b/x",)}, {"output": "gs://b/o/"}, {"publish": "gs://b/o/"}):
        with pytest.raises(UsageError, match=r"'gs'; known are file, https, my-azure\.1, s3"):
            check_uris(spec(**fields), KNOWN)


def test_uri_02_unknown_action_is_refused_naming_the_three_and_the_option():
    with pytest.raises(UsageError, match=r"--input.*unzip.*untar, gunzip and mv:"):
        check_uris(spec(inputs=("s3://b/x|unzip",)), KNOWN)


@pytest.mark.parametrize("output", ["s3://b/o|untar", "s3://b/*/", "s3://b/../o", "", "  ", "https://h/o/", "b/o"])
def test_out_05_outputs_that_cannot_be_meant_are_refused(output):
    with pytest.raises(UsageError, match="--output"):
        check_uris(spec(output=output), KNOWN)
    with pytest.raises(UsageError, match="--publish"):
        check_uris(spec(publish=output), KNOWN)


@pytest.mark.parametrize("folder", ["../x", "a/../b", "/abs", "", ".", "a/.."])
def test_mv_04_mv_05_mv_06_bad_targets_are_refused(folder):
    with pytest.raises(UsageError, match="--resource"):
        check_uris(spec(resources=(f"s3://b/x|mv:{folder}",)), KNOWN)


def test_skip_if_exists_needs_an_output():
    with pytest.raises(UsageError, match="--output"):
        check_uris(spec(skip_if_exists=True), KNOWN)


def test_the_number_of_uris_is_bounded():
    with pytest.raises(UsageError, match="folder"):
        check_uris(spec(inputs=("s3://b/x",) * (MOST_URIS + 1)), KNOWN)
