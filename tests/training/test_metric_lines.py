"""The lines of a run: those of a resumed run are those of an uninterrupted one, and no damage blocks it."""

import json
from pathlib import Path

import pytest

from palavra.log import Log
from palavra.run_records.training import MetricLine
from palavra.training.run_directory import Metrics

GOOD = [{"kind": "train", "step": step, "loss": 2.0} for step in (2, 4, 6)]
DAMAGE = [
    b"\xff\xfe", b"[1]", b"null", b'{"kind": "train"}', b'{"kind": "train", "step": "x"}', b"[" * 5000, b"\x00",
    b'{"kind": "train", "step": 1' + b"0" * 5000 + b"}", b'{"kind": "train", "step": -1}', b"{" * 2_000_000,
    b'{"kind": "train", "step": 3, "loss": NaN}', b'{"kind": "event", "step": 3, "message": "\xff"}', b"",
]  # fmt: skip


class Warned(Log):
    """A log that remembers its warnings."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Remember one warning."""
        self.warnings.append(text)


@pytest.mark.parametrize("damage", DAMAGE, ids=range(len(DAMAGE)))
def test_a_damaged_line_is_left_out_with_a_warning(tmp_path: Path, damage: bytes) -> None:
    path, log = tmp_path / "metrics.jsonl", Warned()
    first, second, third = (json.dumps(line).encode() for line in GOOD)
    path.write_bytes(b"\n".join([first, damage, second, third, b'{"kind": "tr']))
    Metrics(path, log).rewind(4)
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == GOOD[:2]
    (said,) = log.warnings
    assert "metrics.jsonl" in said
    assert len(said) < 1000


def test_a_whole_last_line_without_its_end_gets_one(tmp_path: Path) -> None:
    path, log = tmp_path / "metrics.jsonl", Warned()
    path.write_text(json.dumps(GOOD[0]))
    metrics = Metrics(path, log)
    metrics.rewind(2)
    metrics.write(MetricLine(kind="train", step=4, values={"loss": float("nan")}))
    found = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    assert found == [GOOD[0], {"kind": "train", "step": 4, "loss": None}]
    assert not log.warnings


def test_a_folder_in_the_place_of_the_file_is_a_warning(tmp_path: Path) -> None:
    log = Warned()
    (tmp_path / "metrics.jsonl").mkdir()
    metrics = Metrics(tmp_path / "metrics.jsonl", log)
    metrics.rewind(3)
    metrics.write(MetricLine(kind="train", step=4))
    assert len(log.warnings) == 2
