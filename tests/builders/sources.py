"""What sources give, and the one line that says what is wrong with them."""

from pathlib import Path
from typing import Any

import pytest

from palavra.data.config import SourceConfig
from palavra.data.sources import Document, Tally, read_documents
from palavra.errors import PalavraError


def read(*sources: Path | str, tally: Tally | None = None, **settings: Any) -> list[Document]:
    config = SourceConfig(sources=tuple(map(str, sources)), **settings)
    return list(read_documents(config, tally if tally is not None else Tally()))


def texts(*sources: Path | str, **settings: Any) -> list[str]:
    return [document.text for document in read(*sources, **settings)]


def wrong(*sources: Path | str, **settings: Any) -> str:
    with pytest.raises(PalavraError) as caught:
        read(*sources, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)
