import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scitq.errors import UsageError
from scitq.model.uri import Gunzip, Move, Untar, Uri, name_matches


def test_uri_01_the_scheme_is_the_name_of_the_storage():
    uri = Uri.parse("My-s3_2.x://bucket/data/input1.dat")
    assert (uri.scheme, uri.bucket, uri.key, uri.name, uri.actions) == ("My-s3_2.x", "bucket", "data/input1.dat", "input1.dat", ())


@pytest.mark.parametrize(
    ("text", "actions"),
    [
        ("s3://b/x|untar", (Untar(),)),
        ("s3://b/x|gunzip|untar", (Gunzip(), Untar())),
        ("s3://b/x|mv:a/b|untar", (Move("a/b"), Untar())),
        ("s3://b/x|mv:./s/", (Move("s"),)),
        ("s3://b/x|mv:a//b", (Move("a/b"),)),
        ("s3://b/x|mv:a%7Cb", (Move("a|b"),)),
    ],
)
def test_uri_02_actions_are_read_in_order(text, actions):
    assert Uri.parse(text).actions == actions


@pytest.mark.parametrize("action", ["unzip", "UNTAR", "untar ", " untar", "mv", "untar:", "gunzip:x", "cp:x"])
def test_uri_02_unknown_actions_are_refused_naming_the_three(action):
    with pytest.raises(UsageError, match=r"untar, gunzip and mv:FOLDER"):
        Uri.parse(f"s3://b/x|{action}")


@pytest.mark.parametrize("text", ["s3://b/x|", "s3://b/x||untar", "s3://b/x|untar|"])
def test_uri_04_an_empty_action_is_refused(text):
    with pytest.raises(UsageError, match="empty"):
        Uri.parse(text)


@pytest.mark.parametrize("folder", ["..", "../x", "a/../b", "a/..", "/abs", "/", "", ".", "./", "././.", "a/" + "é" * 128])
def test_mv_04_05_06_folders_that_would_leave_are_refused(folder):
    with pytest.raises(UsageError, match="mv:"):
        Uri.parse(f"s3://b/x|mv:{folder}")


def test_mv_the_last_folder_counts():
    assert Uri.parse("s3://b/x|mv:a|untar|mv:b").folder == "b"
    assert Uri.parse("s3://b/x|untar").folder == ""


@pytest.mark.parametrize("text", ["s*3://b/x", "*://b/x", "s3://b*/x", "s3://*", "s3://*/x", "https://host/*.dat"])
def test_in_06_a_star_in_storage_or_bucket_is_refused(text):
    with pytest.raises(UsageError, match=r"\*"):
        Uri.parse(text)


@pytest.mark.parametrize(
    "text",
    ["", "x", "/a/b", "s3:/b/x", "://b/x", "s3://", "s3:///x", "s3:///", "s 3 ://b", "a/b://x", "s3://b/\0", "s3://b/\udcff", "file://x/y"],
)
def test_what_is_no_uri_is_refused(text):
    with pytest.raises(UsageError):
        Uri.parse(text)


def test_a_root_is_accepted_where_asked_for():
    assert Uri.parse("s3://", may_be_root=True).path == ""
    assert Uri.parse("file:///").path == "/"


def test_in_11_every_other_character_stands_for_itself():
    text = "s3://b/ -x [1]{a,b}?!\\ #%20+&'\"@\n:é/e\u0301.dat"
    uri = Uri.parse(text)
    assert uri.path == text.removeprefix("s3://")
    assert str(uri) == text
    assert not uri.has_pattern


def test_in_11_a_bar_in_a_name_is_written_as_an_escape():
    uri = Uri.parse("s3://b/a%7Cb%7c|untar")
    assert (uri.path, uri.actions) == ("b/a|b|", (Untar(),))
    assert str(uri) == "s3://b/a%7Cb%7C|untar"
    for written, name in (("a%257Cb", "a%7Cb"), ("a%257cb", "a%7cb"), ("a%25257Cb", "a%257Cb"), ("a%2Fb", "a%2Fb"), ("a%25b", "a%25b")):
        assert Uri.parse(f"s3://b/{written}").path == f"b/{name}"
        assert str(Uri("s3", f"b/{name}")) == f"s3://b/{written}"
    assert str(Uri.parse("http://h/a%7Cb%257Cc")) == "http://h/a%7Cb%257Cc"


def test_in_15_web_names_lose_their_query():
    uri = Uri.parse("https://host:8080/a/x.dat?sig=a*b/c&d=1")
    assert (uri.name, uri.bucket, uri.has_pattern) == ("x.dat", "host:8080", False)


@pytest.mark.parametrize(("text", "path"), [("s3://b/out", "b/out/"), ("s3://b/out/", "b/out/"), ("s3://b", "b/"), ("file:///d", "/d/")])
def test_out_01_an_output_is_always_a_folder(text, path):
    assert Uri.parse_output(text).path == path


@pytest.mark.parametrize(
    "text", ["", "  ", "s3://b/x|untar", "s3://b/x|", "s3://b/*/", "s3://b/../x", "s3://b/..", "nothing", "https://h/x/"]
)
def test_out_05_actions_stars_and_ways_out_are_refused_in_outputs(text):
    with pytest.raises(UsageError):
        Uri.parse_output(text)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("*", "", True),
        ("*", ".hidden", True),
        ("*.dat", "1.dat", True),
        ("*.dat", "1.dat.gz", False),
        ("*.dat", ".dat", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*c", "axxbyyc", True),
        ("a*b*c", "acb", False),
        ("x [1]*", "x [1].dat", True),
        ("x [1]*", "x 1.dat", False),
        ("a?b*", "a?b.dat", True),
        ("a?b*", "axb.dat", False),
        ("**", "anything", True),
        ("{a,b}*", "{a,b}.dat", True),
        ("*\\*", "a\\b", True),
        ("*ab*ab", "ab", False),
    ],
)
def test_in_06_07_only_the_star_is_special(pattern, name, expected):
    assert name_matches(pattern, name) is expected


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_matching_agrees_with_its_definition(pattern, name):
    def reference(left: str, right: str) -> bool:
        if not left:
            return not right
        if left[0] == "*":
            return any(reference(left[1:], right[count:]) for count in range(len(right) + 1))
        return bool(right) and left[0] == right[0] and reference(left[1:], right[1:])

    assert name_matches(pattern, name) is reference(pattern, name)


@given(
    st.text(min_size=1).filter(lambda text: "\0" not in text and not set(text) <= {"/"} and not text.startswith("/") and "*" not in text)
)
def test_a_uri_survives_being_written_and_read(path):
    try:
        path.encode()
    except UnicodeEncodeError:
        return
    uri = Uri("s3", path, (Move("a|b"), Untar()))
    assert Uri.parse(str(uri)) == uri


@given(st.text("%257cC|", min_size=1, max_size=12))
def test_in_11_names_that_look_like_the_escape_are_told_apart(name):
    uri = Uri("s3", f"b/{name}", (Move(name),))
    assert Uri.parse(str(uri)) == uri
    assert "|" not in uri.location


def test_many_names_are_matched_fast():
    names = [f"sample_{number}_R1.fastq.gz" for number in range(100_000)]
    started = time.process_time()
    assert sum(name_matches("sample_*_R*.fastq.gz", name) for name in names) == 100_000
    assert time.process_time() - started < 10
