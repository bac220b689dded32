"""Who may read what was written: as with any new file, so that a service of another user can load a model."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from palavra.files import atomic_path, atomic_write_tensors, atomic_write_text


@pytest.fixture(params=[0o022, 0o027, 0o002], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_tensors_and_texts_are_as_readable_as_any_new_file(tmp_path: Path, umask: int) -> None:
    for _ in range(2):  # new, and in the place of another
        atomic_write_tensors(tmp_path / "model.safetensors", {"weight": torch.zeros(2)})
        atomic_write_text(tmp_path / "config.json", "{}")
        for name in ("model.safetensors", "config.json"):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask


def test_a_block_that_ends_badly_leaves_neither_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "model"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
