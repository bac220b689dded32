"""What a run says while it works: on terminals, in notebooks, and not at all."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from palavra.errors import options_as_flags
from palavra.log import Log


class Handle:
    """An output of a notebook's cell."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def update(self, html: Any) -> None:
        self.shown.append(html._repr_html_())


def in_notebook(monkeypatch: pytest.MonkeyPatch) -> tuple[Log, Handle]:
    log, handle = Log(), Handle()
    display = ModuleType("IPython.display")
    display.display = lambda html, display_id: handle  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(log._console, "is_jupyter", True)
    return log, handle


def test_a_notebook_shows_one_bar_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    log, handle = in_notebook(monkeypatch)
    with log.live("training", 10) as live:
        for step in range(5):
            live.update(step + 1, f"step {step + 1} < 10")
    first, last = handle.shown
    assert "training" in first
    assert "step 1 &lt; 10" in first
    assert last == ""


def test_the_bar_of_a_notebook_goes_when_an_error_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    log, handle = in_notebook(monkeypatch)
    with pytest.raises(ValueError, match="lost"), log.live("training", 10):
        raise ValueError("lost")
    assert handle.shown == [""]


def test_lines_name_options_as_whoever_reads_them_gives_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log()
    log.open_file(tmp_path / "train.log")
    log.warn("split a .txt by --documents=line, or add --resume")
    with options_as_flags():
        log.warn("split a .txt by --documents=line, or add --resume")
    python, flags = capsys.readouterr().err.splitlines()
    assert python == 'warning: split a .txt by documents="line", or add resume=True'
    assert flags == "warning: split a .txt by --documents=line, or add --resume"
    assert [line[20:] for line in (tmp_path / "train.log").read_text(encoding="utf-8").splitlines()] == [python, flags]


def test_a_quiet_log_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(quiet=True)
    log.line("a line")
    with log.live("training", None) as live:
        live.update(1)
    assert capsys.readouterr().err == ""
