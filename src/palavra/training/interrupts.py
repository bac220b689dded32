"""Ctrl-C, SIGTERM and the end of the terminal: finish the step, save, and exit with the code of the signal."""

import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from palavra.errors import OptionNaming

# Windows has no SIGHUP.
_HANG_UP = getattr(signal, "SIGHUP", None)


class Interrupted(OptionNaming):
    """A run stopped on a signal, after saving its state. `exit_code` is 128 + the signal's number."""

    def __init__(self, message: str, exit_code: int):
        super().__init__(message)
        self.exit_code = exit_code


class StopRequest:
    """Whether a signal arrived, and which. `before` holds the replaced handlers by signal number; an outer block's
    request among them is notified too."""

    def __init__(self, before: Mapping[int, Any]):
        self._before = before
        around = (handler.signal for handler in before.values() if isinstance(handler, StopRequest))
        self.signal: int | None = next(around, None)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Record a first signal; a second one has its usual effect."""
        before = self._before[number]
        if self.signal is not None:
            if number == _HANG_UP:
                return  # the system and the shell send one each
            signal.signal(number, before)
            signal.raise_signal(number)
            return
        self.signal = number
        if isinstance(before, StopRequest):
            before(number, frame)

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        """128 + the signal's number: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + (self.signal or 0)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Record SIGINT, SIGTERM and SIGHUP while the block runs; a second one has its usual effect, but a second SIGHUP
    has none. A SIGHUP that is ignored, as under `nohup`, stays ignored.

    Blocks may be nested: a signal that the inner block did not act on, such as one in the last step of a repeated run,
    is recorded in the outer block too. Outside the main thread, where Python allows no handlers, signals keep their
    usual effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield StopRequest({})
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if _HANG_UP is not None and signal.getsignal(_HANG_UP) != signal.SIG_IGN:
        numbers.append(_HANG_UP)
    before = {int(number): signal.getsignal(number) for number in numbers}
    request = StopRequest(before)
    for number in before:
        signal.signal(number, request)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
