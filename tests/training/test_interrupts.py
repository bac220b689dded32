"""A signal is recorded, so that a run can finish its step and save."""

import signal
from collections.abc import Iterator

import pytest

from palavra.training.interrupts import stop_on_signals

HANG_UP = signal.SIGHUP


@pytest.fixture(autouse=True)
def _default() -> Iterator[None]:
    """The end of the terminal acts as usual, also where the tests were started with nohup."""
    before = signal.signal(HANG_UP, signal.SIG_DFL)
    yield
    signal.signal(HANG_UP, before)


def test_the_end_of_the_terminal_is_told_twice_and_stops_once() -> None:
    with stop_on_signals() as outer:
        with stop_on_signals() as inner:
            signal.raise_signal(HANG_UP)
            signal.raise_signal(HANG_UP)
        assert (inner.exit_code, outer.exit_code) == (129, 129)
        signal.raise_signal(HANG_UP)
    assert signal.getsignal(HANG_UP) == signal.SIG_DFL


def test_an_end_of_the_terminal_that_is_ignored_stays_ignored() -> None:
    signal.signal(HANG_UP, signal.SIG_IGN)
    with stop_on_signals() as stop:
        signal.raise_signal(HANG_UP)
        assert not stop
        assert signal.getsignal(HANG_UP) == signal.SIG_IGN
