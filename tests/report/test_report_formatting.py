"""Numbers, durations and tokens as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palavra.report import formatting, metrics


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (13_906, "13,906"),
        (1_234_567, "1.23 M"),
        (999_999.9, "1,000,000"),
        (2.5e9, "2.5 B"),
        (0.98, "0.98"),
        (10**400, "–"),
        (float("inf"), "–"),
        (True, "–"),
        ("3", "–"),
    ],
)
def test_counts_as_people_write_them(value: object, shown: str) -> None:
    shown = shown.replace(" ", formatting.SPACE).replace("–", formatting.ABSENT)
    assert formatting.count(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0_s"),
        (59.96, "1_min 00_s"),
        (184.3, "3_min 04_s"),
        (3599.7, "1_h 00_min"),
        (3725, "1_h 02_min"),
        (200_000, "2_d 08_h"),
        (-1, formatting.ABSENT),
    ],
)
def test_durations_as_people_write_them(seconds: float, shown: str) -> None:
    assert formatting.duration(seconds) == shown.replace("_", formatting.SPACE)


def test_other_numbers_and_tokens() -> None:
    assert formatting.percent(0.3764) == "37.6%"
    assert formatting.percent(1e-5) == "<0.1%"
    assert formatting.percent(0.0) == "0.0%"
    assert formatting.percent(None) == formatting.ABSENT
    assert formatting.size(2_540_117) == f"2.54{formatting.SPACE}MB"
    assert formatting.size(2.5e9) == f"2.5{formatting.SPACE}GB"
    assert formatting.size(12) == f"12{formatting.SPACE}bytes"
    assert formatting.perplexity(46.123) == "46.1"
    assert formatting.perplexity(12_345.6) == "12,346"
    assert formatting.visible("best") == "best"
    assert formatting.visible(" \n") == "␣↵"
    assert formatting.visible("") == "(empty)"
    assert formatting.visible("a\x00") == "aU+0000"


@given(st.one_of(st.none(), st.floats(), st.integers(), st.text(), st.booleans()))
def test_no_value_breaks_a_number(value: object) -> None:
    for form in (formatting.count, formatting.size, formatting.duration, formatting.percent, formatting.loss):
        assert form(value)
    assert formatting.perplexity(value)


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("accuracy", 0.964, "96.4%"),
        ("names/macro_f1", 0.95, "95.0%"),
        ("calibration_error", 0.047, "4.7%"),
        ("matthews", 0.95474, "0.955"),
        ("mse", 1234.5, "1,234"),
        ("loss", 0.0012345, "0.001234"),
        ("loss", 0.0, "0.000"),
        ("f1", None, "–"),
    ],
)
def test_scores_as_people_write_them(key: str, value: object, shown: str) -> None:
    assert metrics.format_of(key)(value) == shown
    assert metrics.metric_name("names/macro_f1") == "names: Macro F1"
    assert metrics.place_name("task/valid") == "validation"
    assert metrics.place_name("names/test") == "names, test"
