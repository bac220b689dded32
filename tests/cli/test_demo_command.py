"""The demo as a command."""

from typing import Any

import pytest
from builders.commands import Ask

from palavra import demo


def test_the_demo_needs_no_option(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    called: dict[str, Any] = {}
    monkeypatch.setattr(demo, "build_recipe", lambda *sources, **options: called.update(options) or 1 / 0)
    monkeypatch.setattr(demo, "fetch_reviews", lambda log: "reviews.csv")
    with pytest.raises(ZeroDivisionError):
        ask("--debug", "demo")
    assert called["minutes"] == 3.0
