"""What is refused at creation, before anything is stored."""

from __future__ import annotations

import random

import pytest

from scitq.errors import UsageError
from scitq.model.task import TaskSpec
from scitq.model.uri import Uri
from scitq.model.uri_rules import MOST_URIS, check_uris

KNOWN = frozenset(("s3", "my-azure.1", "file", "https"))


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


PIECES = (
    *("s3", "my-azure.1", "https", "file", "gs", "://", "/", "//", "b", "b*", "*", "..", "|untar", "|mv:a/b", "|mv:../a", "|", "%7C"),
    *("\0", "\n", "é", " ", "?"),
)


@pytest.mark.parametrize("seed", range(8))
def test_a_glance_and_a_close_look_agree_on_every_uri(seed):
    def is_good(parse, text):
        try:
            return parse(text).scheme in KNOWN
        except UsageError:
            return False

    def passes(**fields):
        try:
            check_uris(spec(**fields), KNOWN)
        except UsageError:
            return False
        return True

    chance = random.Random(seed)
    for _ in range(1500):
        start = "s3://b" if chance.random() < 0.5 else ""
        text = start + "".join(chance.choices(PIECES, k=chance.randint(1, 6)))
        assert passes(inputs=(text, "s3://b/c")) is is_good(Uri.parse, text), repr(text)
        assert passes(resources=("s3://b/c", text)) is is_good(Uri.parse, text), repr(text)
        assert passes(output=text) is is_good(Uri.parse_output, text), repr(text)
