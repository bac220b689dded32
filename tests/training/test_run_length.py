"""The length of a run, and planning it again when steps take another time."""

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palavra.training.config import ScheduleConfig
from palavra.training.run_length import RunLength, TimeBudget
from palavra.training.schedules import rate


@given(steps=st.integers(1, 10_000), step=st.integers(0, 10_000))
def test_a_length_that_was_kept_is_the_fraction_of_steps(steps: int, step: int) -> None:
    length = RunLength(steps=steps)
    assert length.progress(step) == step / steps
    assert rate(length.place(step), length.places, ScheduleConfig()) == rate(step, steps, ScheduleConfig())


@given(st.data())
def test_a_changed_length_goes_on_from_where_it_was_and_ends_at_its_end(data: st.DataObject) -> None:
    length, step = RunLength(steps=data.draw(st.integers(2, 5000))), 0
    for _ in range(data.draw(st.integers(1, 4))):
        step = data.draw(st.integers(step, length.steps - 1))
        changed = length.changed(step, data.draw(st.integers(step + 1, 10_000)))
        assert changed.progress(step) == pytest.approx(length.progress(step), abs=1e-9)
        assert changed.progress(changed.steps) == 1
        length = changed
    left = [length.progress(at) for at in range(step, length.steps + 1)]
    assert left == sorted(left)
    gaps = [after - before for before, after in itertools.pairwise(left)]
    assert max(gaps) == pytest.approx(min(gaps), abs=1e-9)


def time_of(planned: int, step_seconds: Callable[[float], float], budget: float, validation: float = 0.0) -> float:
    """The seconds of a run whose steps take what `step_seconds` says at each second, looked at every 10 steps, with a
    validation after each tenth of the plan."""
    length, plan = RunLength(steps=planned), TimeBudget(budget, 0, 0.0)
    step, trained, elapsed = 0, 0.0, 0.0
    while step < length.steps:
        seconds = step_seconds(elapsed)
        step, trained, elapsed = step + 1, trained + seconds, elapsed + seconds
        if step % -(-planned // 10) == 0:
            elapsed += validation
        if step % 10 == 0 and step < length.steps:
            steps = plan.look(length, step, trained, elapsed)
            length = length if steps is None else length.changed(step, steps)
    return elapsed


@pytest.mark.parametrize("begins", [0, 30, 90, 150])
@pytest.mark.parametrize("factor", [0.4, 0.7, 1.5, 4.0, 7.0])
def test_minutes_are_kept_when_a_neighbour_comes_or_goes(begins: float, factor: float) -> None:
    def step_seconds(at: float) -> float:
        return 0.05 * (factor if at >= begins else 1)

    assert time_of(3500, step_seconds, 180.0, validation=0.5) == pytest.approx(180, rel=0.15)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_a_run_that_keeps_its_time_keeps_its_plan(noise: float) -> None:
    length, plan = RunLength(steps=3500), TimeBudget(180.0, 0, 0.0)
    trained = 0.0
    for step in range(10, 3500, 10):
        trained += 0.5 * (1 + noise * (-1) ** (step // 10))
        assert plan.look(length, step, trained, trained + step / 700) is None


def test_a_run_whose_time_is_over_ends_with_its_next_step() -> None:
    length = RunLength(steps=1000)
    assert TimeBudget(60.0, 0, 0.0).look(length, 20, trained=70.0, elapsed=75.0) == 21
