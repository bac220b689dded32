import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palavra.errors import PalavraError
from palavra.training.config import ScheduleConfig, ScheduleName
from palavra.training.schedules import SCHEDULES, rate


def rates(name: ScheduleName, steps: int = 100, **values: float) -> list[float]:
    config = ScheduleConfig(name=name, **values)
    return [rate(step, steps, config) for step in range(steps)]


def test_linear() -> None:
    found = rates("linear", warmup=0.0)
    assert found == pytest.approx([1 - step / 100 for step in range(100)])


def test_warmup_rises_to_the_peak_and_every_schedule_has_it() -> None:
    for name in SCHEDULES:
        found = rates(name, warmup=0.1)
        assert found[:10] == pytest.approx([(step + 1) / 11 for step in range(10)]), name
        assert found[10] == pytest.approx(1.0), name


def test_cosine() -> None:
    found = rates("cosine", warmup=0.2, floor=0.1)
    assert found[60] == pytest.approx(0.1 + 0.9 * 0.5)
    assert found[40] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)


def test_warmup_stable_decay() -> None:
    found = rates("warmup-stable-decay", warmup=0.1, decay=0.3, floor=0.2)
    assert found[10:71] == pytest.approx([1.0] * 61)
    assert found[85] == pytest.approx(1 - 0.8 * 15 / 30)


def test_inverse_square_root() -> None:
    found = rates("inverse-square-root", steps=1000, warmup=0.04)
    assert found[160] == pytest.approx(0.5)
    assert found[640] == pytest.approx(0.25)
    assert min(rates("inverse-square-root", steps=1000, warmup=0.04, floor=0.3)[40:]) == 0.3


def test_constant() -> None:
    assert set(rates("constant", warmup=0.0)) == {1.0}


@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    steps=st.integers(1, 300),
    warmup=st.floats(0, 1),
    share=st.floats(0, 1),
    floor=st.floats(0, 1),
)
def test_every_share_is_above_zero_and_falls_after_the_warmup(
    name: ScheduleName, steps: int, warmup: float, share: float, floor: float
) -> None:
    """No step is wasted at rate 0, and none goes past the peak."""
    config = ScheduleConfig(name=name, warmup=warmup, decay=(1 - warmup) * share * 0.999, floor=floor)
    found = [rate(step, steps, config) for step in range(steps)]
    assert all(0 < share <= 1 for share in found)
    rising = [step for step in range(steps) if step < warmup * steps]
    assert found[: len(rising)] == sorted(found[: len(rising)])
    falling = found[len(rising) :]
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(falling))


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"warmup": -0.1}, "warmup"),
        ({"floor": 1.5}, "floor"),
        ({"decay": 2.0}, "decay"),
        ({"name": "warmup-stable-decay", "warmup": 0.6, "decay": 0.6}, "more than the whole run"),
    ],
)
def test_impossible_schedules_are_refused(values: dict[str, float], what: str) -> None:
    with pytest.raises(PalavraError, match=what):
        ScheduleConfig(**values)  # type: ignore[arg-type]
