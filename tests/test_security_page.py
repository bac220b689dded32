"""The bounds on the page about security are those of the code."""

import importlib
import re

import pytest
from builders.pages import ROOT

PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| .+ \| ([\d,]+) \| `(palavra[\w.]+)\.([A-Z_]+)` \|$", PAGE, re.MULTILINE)
ROWS += re.findall(r"([\d,]+) bytes of\s+allowed address space\s+\(`(palavra[\w.]+)\.([A-Z_]+)`\)", PAGE)


def test_every_row_of_the_table_is_read() -> None:
    assert (
        len(ROWS) == len(re.findall(r"`palavra\.[\w.]+\.[A-Z_]{3,}`", PAGE)) - 1
    )  # the bounds of model.config are many


@pytest.mark.parametrize(("number", "module", "name"), ROWS, ids=[name for _, _, name in ROWS])
def test_a_bound_is_that_of_the_code(number: str, module: str, name: str) -> None:
    assert number == f"{getattr(importlib.import_module(module), name):,}"
