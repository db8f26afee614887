"""Two records are compared field by field; what a version to come left beside an object is no loss."""

from instar.migration.again import differences


def test_same_records_do_not_differ() -> None:
    record = {"a": 1, "b": [1, 2], "c": {"version": 1, "fields": {"d": b"x"}}}
    assert differences(record, dict(record), "thing") == []


def test_paths_lead_to_what_differs() -> None:
    given = {"a": 1, "b": [{"version": 1, "fields": {"d": b"x", "e": 2}}], "c": [1, 2]}
    saved = {"a": 2, "b": [{"version": 1, "fields": {"d": b"y", "e": 2}}], "c": [1]}
    assert differences(given, saved, "t") == ["t.a", "t.b[0].d", "t.c (1 instead of 2)"]


def test_missing_field_is_a_loss_and_an_additional_one_is_none() -> None:
    assert differences({"a": 1}, {"b": 2}, "t") == ["t.a"]


def test_optional_fields_are_compared_where_both_know_them() -> None:
    given = {"a": 1, "+": {"known": 1, "to-come": 2}}
    assert differences(given, {"a": 1, "+": {"known": 3}}, "t") == ["t.known"]
    assert differences(given, {"a": 1}, "t") == []
