"""What every test stands on: no network, fixed seeds, quiet libraries."""

import os
import random
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from builders.commands import Ask

# Set before a test imports a library that reads them. The threads of tokenizers and forks do not mix.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# As many tests run at once as there are cores: one thread each. Commands that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

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


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents are tokenized sixteen at a time, so that a small corpus fills many batches."""
    from palavra.data import shards

    monkeypatch.setattr(shards, "_BATCH_DOCUMENTS", 16)


# Read by many files and changed by none, so that each process makes them once. What they need is imported where
# they are made: it takes seconds, and most files do without.


@pytest.fixture(scope="session")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pretrained directory of each family."""
    from builders.finetuning import write_pretrained

    folder = tmp_path_factory.mktemp("pretrained")
    write_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with labelled tables: train.csv, valid.csv and test.csv."""
    from builders.finetuning import write_reviews

    folder = tmp_path_factory.mktemp("reviews")
    write_reviews(folder)
    return folder


@pytest.fixture
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no report and do not time the machine, which takes longer than all the rest of a small run and has
    tests of its own. Patched by the test's own `monkeypatch`, which undoes all patches of a name in their order."""
    from palavra.experiments import repeat
    from palavra.finetuning import run as finetuning
    from palavra.pretraining import job as pretraining_job
    from palavra.pretraining import run as pretraining

    for module in (finetuning, pretraining, repeat):
        monkeypatch.setattr(module, "write_report", lambda folder: folder / "report.html")
    monkeypatch.setattr(pretraining_job, "matmul_peak", lambda compute: 1e11)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run a command in this process: its exit code, and what it says on stdout and stderr."""
    from palavra.cli import main

    def run_command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["palavra", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    return run_command


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a fine-tuned model of each kind, under the kind's name."""
    from builders.prediction import FITTED, model_of

    from palavra.tasks.saved_model import save_task_model

    folder = tmp_path_factory.mktemp("models")
    for kind in FITTED:
        model = model_of(kind)
        model.tokenizer.save(folder / kind, context=model.model.config.context, segments=True)
        save_task_model(model.model, model.tasks, folder / kind, model.tokenizer.config_ids())
    return folder
