"""The demo as a command."""

from typing import Any, NoReturn

import pytest
from builders.commands import Ask

from palavra import demo


class Called(Exception):
    """Ends the demo where its recipe is made."""


def test_the_demo_needs_no_option(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def recipe(*sources: Any, minutes: float, **options: Any) -> NoReturn:
        raise Called(sources, minutes)

    monkeypatch.setattr(demo, "build_recipe", recipe)
    monkeypatch.setattr(demo, "fetch_reviews", lambda log: "reviews.csv")
    with pytest.raises(Called) as called:
        ask("--debug", "demo")
    assert called.value.args == ((["reviews.csv"],), 3.0)
