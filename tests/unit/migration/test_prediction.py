"""What a pause is expected to be: all of what was measured, put right by how it was before."""

from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr.rehearsal import Answer
from instar.migration.prediction import EVEN, bias_after, predict
from instar.migration.report import Report

times = st.integers(0, 10**12)


def answer(begun: int, build: int, load: int) -> Answer:
    made = Answer()
    made.begun_ns, made.build_ns, made.load_ns = begun, build, load
    return made


def report(*, parts: int = -1, pause: int = -1, bias: int = EVEN, outcome="completed") -> Report:
    made = Report("cpr-exec", "0")
    made.parts_ns, made.bias = parts, bias
    made.stopped_ns, made.resumed_ns = 0, pause
    made.end(outcome)
    return made


def test_first_prediction_is_what_was_measured() -> None:
    one = Report("cpr-exec", "0")
    assert predict(one, 1, answer(20, 300, 4000)) == one.parts_ns == 4321


@settings(max_examples=60)
@given(times, times, times, times, st.integers(500, 2000))
def test_prediction_has_every_part_and_never_less_than_building_and_loading(
    save, begun, build, load, bias
) -> None:
    one = report(bias=bias)
    predicted = predict(one, save, answer(begun, build, load))
    assert predicted >= build + load
    assert predicted >= one.parts_ns * bias // EVEN
    longer = predict(report(bias=bias), save + 2, answer(begun + 2, build + 2, load + 2))
    assert longer > predicted


def test_bias_follows_pauses_that_stay_as_they_are() -> None:
    last = None
    for _ in range(8):
        last = report(parts=1000, pause=700, bias=bias_after(last))
    assert abs(last.bias - 700) < 20


@settings(max_examples=60)
@given(st.integers(-(10**9), 10**12), st.integers(-(10**9), 10**12), st.integers(-9, 10**9))
def test_bias_stays_within_its_limits_whatever_the_program_before_told(parts, pause, bias) -> None:
    assert 500 <= bias_after(report(parts=parts, pause=pause, bias=bias)) <= 2000


def test_update_that_was_not_completed_teaches_nothing() -> None:
    for outcome in ("refused", "failed", "cancelled"):
        assert bias_after(report(parts=1000, pause=9000, bias=800, outcome=outcome)) == 800
    other = report(parts=1000, pause=9000, bias=800)
    other.mode = "cpr-transfer"
    assert bias_after(other) == 800


def test_what_is_learned_crosses_updates() -> None:
    one = report(parts=1000, pause=700, bias=900)
    assert bias_after(Report.from_record(one.to_record())) == bias_after(one) != 900
