"""A run goes on exactly where it stood, or from the last place that is whole."""

import errno
import json
import math
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.models import CLS, CPU, SEP, Shelf, build_model, model_config, vocabulary
from safetensors import safe_open
from safetensors.torch import save_file

from palavra import files
from palavra.data.loader import packed_batches
from palavra.data.packing import Cursor, Packer, PackingTally
from palavra.errors import PalavraError
from palavra.model.heads import MaskedLanguageModel
from palavra.objectives.config import MaskingConfig
from palavra.objectives.masked import MaskedObjective
from palavra.training.checkpoint import (
    RunState,
    damage,
    load_checkpoint,
    load_weights,
    newest_whole,
    prune,
    save_checkpoint,
    set_aside,
    steps_saved,
)
from palavra.training.config import OptimizerConfig, OptimizerName, ScheduleConfig
from palavra.training.loop import LoopConfig, in_steps, prefetch, prepare_steps, train
from palavra.training.optimizers import Optimizers, build_optimizers
from palavra.training.run_length import RunLength
from palavra.training.throughput import LineSums

STATE = RunState(
    step=3,
    cursor=Cursor(epoch=1, position=2, carried=((5, 0, 7), (6, 3, 9)), batch=4),
    tokens=100,
    seconds=2.5,
    best_step=2,
    best_score=3.25,
    smoothed_loss=4.5,
    first_loss=7.0,
    packing=PackingTally(budget=64, batches=3, tokens=190),
)


class Run:
    """A small run, with everything random that a real one has: masks, dropout, packing."""

    def __init__(self, optimizer: OptimizerName = "adamw", family: str = "modernbert", steps: int = 12):
        config = model_config(family, dropout=0.1, attention_dropout=0.1)
        torch.manual_seed(5)
        self.model = MaskedLanguageModel(config)
        self.optimizers = build_optimizers(self.model.named_parameters(), OptimizerConfig(name=optimizer))
        self.config = LoopConfig(
            length=RunLength(steps=steps), schedule=ScheduleConfig(), clip=1.0, seed=9, row_width=16
        )
        self.state = RunState(step=0, cursor=Cursor())
        self.losses: list[float] = []

    def train_to(self, last: int) -> "Run":
        shelf = Shelf.random([9, 14, 3, 30, 11, 6, 25, 2, 17])
        packer = Packer(lengths=shelf.lengths, context=16, batch_tokens=64, seed=9)
        objective = MaskedObjective(MaskingConfig(mask_rate=0.3, final_mask_rate=0.15), vocabulary())
        packed = packed_batches(shelf, packer, CLS, SEP, self.state.cursor)
        prepared: Any = prefetch(prepare_steps(in_steps(packed, 2), objective, self.config, CPU, self.state.step))
        reports = train(self.model, objective, prepared, self.optimizers, self.config, CPU, self.state.step)
        for report in reports:
            self.losses.append(float(report.loss))
            self.state = replace(self.state, step=report.step, cursor=report.cursor)
            if report.step == last:
                break
        prepared.close()
        return self


def assert_equal(found: Run, expected: Run) -> None:
    assert found.state == expected.state
    for name, tensor in expected.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], tensor), name
    moments = dict(found.optimizers.state())
    assert moments.keys() == dict(expected.optimizers.state()).keys()
    for name, tensor in expected.optimizers.state():
        assert torch.equal(moments[name], tensor), name


def parts() -> tuple[MaskedLanguageModel, Optimizers]:
    run = Run().train_to(1)
    return run.model, run.optimizers


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A folder with whole checkpoints of steps 2, 9 and 10."""
    model, optimizers = parts()
    for step in (9, 10, 2):
        save_checkpoint(tmp_path, model, optimizers, replace(STATE, step=step))
    return tmp_path


@pytest.mark.parametrize(
    ("optimizer", "family"),
    [("adamw", "modernbert"), ("adam", "bert"), ("muon", "modernbert"), ("sgd", "bert"), ("adagrad", "bert")],
)
def test_resuming_equals_going_straight_bit_for_bit(optimizer: OptimizerName, family: str, tmp_path: Path) -> None:
    straight = Run(optimizer, family).train_to(12)
    first = Run(optimizer, family).train_to(5)
    path = save_checkpoint(tmp_path, first.model, first.optimizers, first.state)
    second = Run(optimizer, family)
    torch.manual_seed(12345)
    second.state = load_checkpoint(path, second.model, second.optimizers)
    assert second.state == first.state
    assert_equal(second.train_to(12), straight)
    assert first.losses + second.losses == straight.losses


def test_resuming_at_the_start_and_from_a_resumed_run(tmp_path: Path) -> None:
    straight = Run(steps=6).train_to(6)
    run = Run(steps=6)
    for step in (0, 1, 4):
        if step:
            run.train_to(step)
        path = save_checkpoint(tmp_path, run.model, run.optimizers, run.state)
        run = Run(steps=6)
        run.state = load_checkpoint(path, run.model, run.optimizers)
    assert_equal(run.train_to(6), straight)


def test_saving_and_loading_is_identity(tmp_path: Path) -> None:
    model, optimizers = parts()
    path = save_checkpoint(tmp_path, model, optimizers, STATE)
    assert path == tmp_path / "step-3"
    assert damage(path) is None
    other = Run()
    assert load_checkpoint(path, other.model, other.optimizers) == STATE
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.model.state_dict()[name], tensor)
    only = build_model(model_config())
    load_weights(path, only)
    for name, tensor in model.state_dict().items():
        assert torch.equal(only.state_dict()[name], tensor)


def test_a_checkpoint_holds_numbers_and_nothing_to_run(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, *parts(), STATE)
    names = {"weights.safetensors", "optimizer.safetensors", "state.json", "checksums.json"}
    assert {file.name for file in path.iterdir()} == names
    assert json.loads((path / "state.json").read_text())["step"] == 3
    assert {file.name for file in tmp_path.iterdir()} == {"step-3"}


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    model, optimizers = parts()
    save_checkpoint(tmp_path, model, optimizers, STATE)
    path = save_checkpoint(tmp_path, model, optimizers, replace(STATE, tokens=101))
    assert load_checkpoint(path, model, optimizers).tokens == 101
    assert steps_saved(tmp_path) == [3]


# Damage


def test_steps_are_ordered_by_number(three: Path) -> None:
    assert steps_saved(three) == [2, 9, 10]
    assert newest_whole(three) == (three / "step-10", [])
    (three / "step-x").mkdir()
    (three / "step-11").touch()
    assert steps_saved(three) == [2, 9, 10]


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert newest_whole(tmp_path) == (None, [])
    assert newest_whole(tmp_path / "absent") == (None, [])


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "state.json", "checksums.json"])
@pytest.mark.parametrize("how", ["truncated", "flipped", "empty", "absent"])
def test_a_damaged_checkpoint_is_skipped_with_a_line(three: Path, name: str, how: str) -> None:
    path = three / "step-10" / name
    content = path.read_bytes()
    middle = len(content) // 2
    spoiled = {
        "truncated": content[: middle * 2 - 1],
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "empty": b"",
    }
    if how == "absent":
        path.unlink()
    else:
        path.write_bytes(spoiled[how])
    found, skipped = newest_whole(three)
    assert found == three / "step-9"
    ((folder, problem),) = skipped
    assert folder.name == "step-10"
    assert "\n" not in problem
    set_aside(folder)
    assert steps_saved(three) == [2, 9]
    assert (three / "damaged-step-10").is_dir()


def test_when_all_are_damaged_each_is_named(three: Path) -> None:
    for step in (2, 9, 10):
        (three / f"step-{step}" / "state.json").unlink()
    found, skipped = newest_whole(three)
    assert found is None
    assert [folder.name for folder, _ in skipped] == ["step-10", "step-9", "step-2"]


def test_checksums_that_are_something_else_are_damage(three: Path) -> None:
    for content in ("[]", "3", "null", '{"weights.safetensors": 3}', "\x00"):
        (three / "step-10" / "checksums.json").write_text(content)
        assert newest_whole(three)[0] == three / "step-9"


def test_another_model_is_refused_in_one_line(three: Path) -> None:
    run = Run(family="bert")
    for action in (load_weights, lambda path, model: load_checkpoint(path, model, run.optimizers)):
        with pytest.raises(PalavraError, match="belongs to another model") as caught:
            action(three / "step-10", run.model)
        assert "\n" not in str(caught.value)


def test_another_optimizer_is_refused_in_one_line(tmp_path: Path) -> None:
    run = Run("muon").train_to(1)
    path = save_checkpoint(tmp_path, run.model, run.optimizers, run.state)
    other = Run("adamw")
    with pytest.raises(PalavraError, match="another optimizer") as caught:
        load_checkpoint(path, other.model, other.optimizers)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{}", "[]", '{"step": 3}', '{"cursor": 3}', "nonsense"])
def test_a_state_of_another_version_is_refused_in_one_line(three: Path, content: str) -> None:
    (three / "step-10" / "state.json").write_text(content)
    model, optimizers = parts()
    with pytest.raises(PalavraError, match="step-10") as caught:
        load_checkpoint(three / "step-10", model, optimizers)
    assert "\n" not in str(caught.value)


def test_weights_that_vanish_are_a_clear_error(three: Path) -> None:
    model, optimizers = parts()
    (three / "step-10" / "weights.safetensors").write_bytes(b"nonsense")
    with pytest.raises(PalavraError, match="cannot be read"):
        load_checkpoint(three / "step-10", model, optimizers)
    save_file({}, three / "step-9" / "weights.safetensors")
    with pytest.raises(PalavraError, match="another model"):
        load_weights(three / "step-9", model)


# Pruning


def test_pruning_keeps_the_last_and_the_best(tmp_path: Path) -> None:
    model, optimizers = parts()
    for step in range(1, 7):
        save_checkpoint(tmp_path, model, optimizers, replace(STATE, step=step))
    (tmp_path / ".partial-99").mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    prune(tmp_path, keep=2, best_step=3)
    assert steps_saved(tmp_path) == [3, 5, 6]
    assert {path.name for path in tmp_path.iterdir()} == {"step-3", "step-5", "step-6", "notes.txt"}
    prune(tmp_path, keep=1, best_step=6)
    assert steps_saved(tmp_path) == [6]
    prune(tmp_path, keep=5, best_step=None)
    assert steps_saved(tmp_path) == [6]


# A full disk, and a kill in the middle


@pytest.mark.parametrize("write", range(4))
def test_a_full_disk_leaves_no_partial_folder_and_the_old_ones_whole(
    three: Path, write: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of its files does not fit any more."""
    calls = []
    real = files.atomic_path

    @contextmanager
    def full(path: Path) -> Iterator[Path]:
        calls.append(path.name)
        if len(calls) > write:
            path.with_suffix(".part").write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        with real(path) as temporary:
            yield temporary

    monkeypatch.setattr(files, "atomic_path", full)
    for step in (10, 11):
        calls.clear()
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(three, *parts(), replace(STATE, step=step, tokens=999))
    monkeypatch.undo()
    assert sorted(path.name for path in three.iterdir()) == ["step-10", "step-2", "step-9"]
    assert newest_whole(three) == (three / "step-10", [])
    assert load_checkpoint(three / "step-10", *parts()).tokens == 100


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits on the size of files to set")
def test_what_the_system_refuses_is_an_os_error(three: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(three, *parts(), replace(STATE, step=11))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert steps_saved(three) == [2, 9, 10]
    assert not (three / ".partial-11").exists()


def test_tensors_are_written_without_a_copy_of_them(tmp_path: Path) -> None:
    tensors = {"a": torch.rand(1 << 20), "b": torch.arange(6).reshape(2, 3)}
    files.atomic_write_tensors(tmp_path / "first.safetensors", {"b": tensors["b"]})  # imports take memory too
    tracemalloc.start()
    try:
        files.atomic_write_tensors(tmp_path / "t.safetensors", tensors, {"format": "pt"})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20
    with safe_open(tmp_path / "t.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_kill_left_behind_is_no_checkpoint_and_is_overwritten(three: Path) -> None:
    left = three / ".partial-11"
    left.mkdir()
    (left / "weights.safetensors").write_bytes(b"half")
    assert newest_whole(three) == (three / "step-10", [])
    path = save_checkpoint(three, *parts(), replace(STATE, step=11))
    assert newest_whole(three) == (path, [])
    assert not left.exists()


# A state that is no state


def rewrite_state(checkpoint: Path, **values: Any) -> None:
    """Change values of a state, with the hash that belongs to the new file."""
    path, sums = checkpoint / "state.json", checkpoint / "checksums.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    sums.write_text(json.dumps(json.loads(sums.read_text()) | {"state.json": files.sha256_of_file(path)}))


NUMBERS: tuple[Any, ...] = (10**30, -5, "x", None, 9, 1.5, True, [], {})
ODD_CURSORS: tuple[Any, ...] = (None, [], {"epoch": -1}, {"position": "x"}, {"carried": [[1, 2]]})
ABSURD: list[dict[str, Any]] = [
    *({"step": value} for value in NUMBERS),
    *({"cursor": value} for value in ODD_CURSORS),
    *({name: value} for name in ("tokens", "documents", "threads") for value in (-1, 10**30, "x", None, 0.5)),
    *({name: value} for name in ("seconds", "best_loss") for value in ("x", None, float("nan"), float("inf"))),
    {"seconds": -1.0},
    {"best_step": 11},
    {"best_step": 10**30},
    {"packing": {"budget": -1}},
    {"since_line": {"steps": "x"}},
    {"since_line": {"loss": float("nan")}},
    {"optimizer": 3},
]


@pytest.mark.parametrize("values", ABSURD, ids=str)
def test_an_absurd_state_is_damage_though_its_hash_is_right(three: Path, values: dict[str, Any]) -> None:
    rewrite_state(three / "step-10", **values)
    found, ((folder, problem),) = newest_whole(three)
    assert (found, folder) == (three / "step-9", three / "step-10")
    assert "state.json" in problem
    assert "\n" not in problem


@pytest.mark.parametrize("content", [b"\xff", b"[" * 100_000, b'{"step": 1' + b"0" * 5000 + b"}", b"", b"{}"])
@pytest.mark.parametrize("name", ["state.json", "checksums.json"])
def test_what_is_no_json_is_damage(three: Path, content: bytes, name: str) -> None:
    (three / "step-10" / name).write_bytes(content)
    if name == "state.json":
        rewritten = {"state.json": files.sha256_of_file(three / "step-10" / name)}
        sums = three / "step-10" / "checksums.json"
        sums.write_text(json.dumps(json.loads(sums.read_text()) | rewritten))
    found, ((_, problem),) = newest_whole(three)
    assert found == three / "step-9"
    assert "\n" not in problem
    assert len(problem) < 1000


def test_a_state_that_does_not_fit_the_data_is_damage(three: Path) -> None:
    found, ((folder, problem),) = newest_whole(three, lambda state: state.step < 10)
    assert (found, folder.name) == (three / "step-9", "step-10")
    assert "the place in the data" in problem


@pytest.mark.parametrize(
    "name", ["step-²", "step-007", "step-1e3", "step-٣", "step--5", "step-+4", "step-1" + "0" * 30]
)
def test_other_folders_are_no_checkpoints(three: Path, name: str) -> None:
    (three / name).mkdir()
    assert steps_saved(three) == [2, 9, 10]
    prune(three, keep=1, best_step=None)
    assert sorted(path.name for path in three.iterdir()) == sorted(["step-10", name])


def test_a_score_that_is_not_defined_comes_back(tmp_path: Path) -> None:
    model, optimizers = parts()
    state = replace(STATE, best_score=math.inf, since_line=LineSums(steps=3, labelled=7, loss=0.1, gradient_norm=2.5))
    path = save_checkpoint(tmp_path, model, optimizers, state)
    json.loads((path / "state.json").read_text(), parse_constant=pytest.fail)
    assert load_checkpoint(path, model, optimizers) == state


def test_moments_of_another_shape_are_refused(tmp_path: Path) -> None:
    model, optimizers = parts()
    path = save_checkpoint(tmp_path, model, optimizers, STATE)
    moments = {name: tensor[:1] if tensor.ndim else tensor for name, tensor in optimizers.state()}
    save_file(moments, path / "optimizer.safetensors")
    with pytest.raises(PalavraError, match="another optimizer or version") as caught:
        load_checkpoint(path, model, optimizers)
    assert "\n" not in str(caught.value)


CURSORS = [
    Cursor(position=9),
    Cursor(epoch=2**60),
    Cursor(batch=2**40),
    *(Cursor(carried=(*((0, 0, 9),), piece)) for piece in ((9, 0, 1), (0, 3, 3), (0, 0, 10), (2**62, 0, 1))),
]


@pytest.mark.parametrize("cursor", CURSORS)
def test_a_cursor_outside_the_text_is_told_from_one_inside(cursor: Cursor) -> None:
    packer = Packer(lengths=Shelf.random([9, 14, 3, 30, 11, 6, 25, 2, 17]).lengths, context=16, batch_tokens=64, seed=9)
    assert not packer.holds(cursor)
    assert all(packer.holds(after) for _, after in islice(packer.batches(), 50))
