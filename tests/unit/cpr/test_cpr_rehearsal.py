"""What a rehearsal's child tells is untrusted; what it says against the update refuses it."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr.encoding import encode
from instar.cpr.errors import CprError, UpdateRefusedError
from instar.cpr.rehearsal import Answer, Child, answer_of, judge, tell

FULL = {
    "program": "2",
    "release": "r",
    "complaints": ["one", "two"],
    "notes": ["three"],
    "reads": {"thing": [1, 4]},
    "build-ns": 5,
}


def test_answer_that_was_told_arrives(tmp_path):
    path = tmp_path / "pipe"
    with path.open("wb") as file:
        tell(file.fileno(), FULL)
    answer = answer_of(path.read_bytes())
    assert (answer.program, answer.release) == ("2", "r")
    assert (answer.complaints, answer.notes) == (["one", "two"], ["three"])
    assert (answer.reads, answer.build_ns) == ({"thing": (1, 4)}, 5)


@pytest.mark.parametrize(
    "told", [{"complaints": 1}, {"reads": {"a": [1], "b": "x"}, "notes": {}}, {"build-ns": "1"}]
)
def test_answer_with_parts_that_make_no_sense_lacks_them(told):
    answer = answer_of(encode(told))
    assert (answer.complaints, answer.notes, answer.reads, answer.build_ns) == ([], [], {}, 0)


@settings(max_examples=50)
@given(st.binary(max_size=64))
def test_answer_of_any_bytes_is_an_answer_or_an_error_of_ours(data):
    try:
        assert isinstance(answer_of(data), Answer)
    except CprError:
        return


def test_judge_without_complaints_lets_the_update_go_on():
    judge(Answer(), "program", "nothing changed")


def test_judge_refuses_with_all_that_was_said():
    with pytest.raises(UpdateRefusedError, match="rehearsal of p: one; nothing changed") as caught:
        judge(answer_of(encode(FULL)), "p", "nothing changed")
    assert caught.value.__notes__ == ["two"]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", "it ended without an answer: it is not a version of this program"),
        ("a\nb\n\n c\nd\n", "b; c; d"),
        ("x: error: this\nhint\ny: error: that\n", "this; that"),
    ],
)
def test_child_without_an_answer_is_quoted(said, told):
    child = Child()
    child._said = os.memfd_create("said")
    os.write(child._said, said.encode())
    assert child.finish().complaints == [told]
    child.stop()


def test_child_that_is_late_says_so():
    assert Child().finish(late_ns=1_500_000_000).complaints == ["it did not answer within 1.5 s"]
