"""What every test stands on: no network, fixed seeds, quiet libraries."""

import os
import random
import socket
import sys
from collections.abc import Iterator
from typing import Any

import hypothesis
import numpy as np
import pytest

# Set before a test imports a library that reads them. The threads of tokenizers and forks do not mix.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

# The same examples in every run, and no time limit for one: machines differ.
hypothesis.settings.register_profile("palavra", derandomize=True, deadline=None, print_blob=False)
hypothesis.settings.load_profile("palavra")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)
    if torch := sys.modules.get("torch"):  # importing it takes seconds: not for the tests that do without
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("localhost", "127.0.0.1", "::1"):
            raise AssertionError(f"a test tried to reach {address}: tests are offline")
        connect(self, address)

    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_here)
        yield
