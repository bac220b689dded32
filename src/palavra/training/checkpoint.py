"""Checkpoints: the full state of a run, written atomically and loaded only if all hashes match."""

import json
import re
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from palavra.data.packing import Cursor
from palavra.errors import OptionNaming, PalavraError
from palavra.files import atomic_write_tensors, atomic_write_text, sha256_of_file, sync_directory
from palavra.training.optimizers import Optimizers
from palavra.training.run_length import RunLength

WEIGHTS, OPTIMIZER, STATE, CHECKSUMS = "weights.safetensors", "optimizer.safetensors", "state.json", "checksums.json"
PREFIX, PARTIAL, DAMAGED = "step-", ".partial-", "damaged-"


class CheckpointError(OptionNaming):
    """The first checkpoint of a run cannot be written; continuing would risk the whole run."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The progress of a run, apart from weights and optimizer.

    Masks and dropout are drawn from (seed, step), and the packer's buffer is part of `cursor`, so there is no other
    random state. `tokens`, `documents` (summed over steps) and `seconds` are totals; `best_*` is the best validation so
    far (the lowest score, and of equal ones the lowest `best_loss`); the monitor compares with `smoothed_loss` and
    `first_loss`; `optimizer` names the one whose state the checkpoint holds; bit-for-bit equality also depends on
    `threads` and `torch`. `elapsed` is `seconds` with validations and checkpoints; `length` replaces the recipe's,
    `planned_steps`, in a run that was planned again.
    """

    step: int
    cursor: Cursor
    tokens: int = 0
    documents: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_score: float | None = None
    best_loss: float = 0.0
    smoothed_loss: float | None = None
    first_loss: float | None = None
    packing: dict[str, int] = field(default_factory=dict)
    optimizer: str = ""
    threads: int = field(default_factory=torch.get_num_threads)
    torch: str = torch.__version__
    elapsed: float = 0.0
    planned_steps: int | None = None
    length: RunLength | None = None


def _folder(directory: Path, step: int) -> Path:
    return directory / f"{PREFIX}{step}"


def save_checkpoint(directory: Path, model: nn.Module, optimizers: Optimizers, state: RunState) -> Path:
    """Write `directory/step-N/` atomically, and return it. Raises OSError if it cannot be written."""
    partial = directory / f"{PARTIAL}{state.step}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        weights = {name: p.detach().cpu().contiguous() for name, p in model.state_dict().items()}
        moments = {name: t.detach().cpu().contiguous() for name, t in optimizers.state()}
        atomic_write_tensors(partial / WEIGHTS, weights)
        atomic_write_tensors(partial / OPTIMIZER, moments)
        atomic_write_text(partial / STATE, json.dumps({**asdict(state), "cursor": state.cursor.to_json()}))
        hashes = {name: sha256_of_file(partial / name) for name in (WEIGHTS, OPTIMIZER, STATE)}
        atomic_write_text(partial / CHECKSUMS, json.dumps(hashes, indent=2) + "\n")
        target = _folder(directory, state.step)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        sync_directory(directory)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return target


def checkpoint_bytes(model: nn.Module, optimizers: Optimizers) -> int:
    """Return the bytes of a checkpoint's tensors. The optimizer has state only after the first step."""
    tensors = [*model.state_dict().values(), *(tensor for _, tensor in optimizers.state())]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def steps_saved(directory: Path) -> list[int]:
    """Return the steps of the checkpoints in `directory`, ascending, including damaged ones."""
    if not directory.is_dir():
        return []
    names = [path.name.removeprefix(PREFIX) for path in directory.glob(f"{PREFIX}*") if path.is_dir()]
    return sorted(int(name) for name in names if name.isdigit())


def prune(directory: Path, keep: int, best_step: int | None) -> None:
    """Keep the last `keep` checkpoints and the best one; remove the others and the leftovers of killed runs."""
    for step in steps_saved(directory)[:-keep]:
        if step != best_step:
            shutil.rmtree(_folder(directory, step), ignore_errors=True)
    remove_unfinished(directory)


def remove_unfinished(directory: Path) -> None:
    """Remove the checkpoints that a kill left half written."""
    for leftover in directory.glob(f"{PARTIAL}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def is_checkpoint(path: Path) -> bool:
    """Return whether a path has the name of a checkpoint, also of a damaged or unfinished one."""
    return re.fullmatch(rf"({re.escape(PARTIAL)}|({DAMAGED})?{PREFIX})[0-9]+", path.name) is not None


def damage(checkpoint: Path) -> str | None:
    """Return what is damaged in a checkpoint, or None if every file exists and matches its hash."""
    try:
        hashes = json.loads((checkpoint / CHECKSUMS).read_text(encoding="utf-8"))
        for name in (WEIGHTS, OPTIMIZER, STATE):
            if sha256_of_file(checkpoint / name) != hashes[name]:
                return f"{name} does not have its recorded hash"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def newest_whole(directory: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """Return the newest undamaged checkpoint, and each newer one with its damage."""
    skipped: list[tuple[Path, str]] = []
    for step in reversed(steps_saved(directory)):
        problem = damage(_folder(directory, step))
        if problem is None:
            return _folder(directory, step), skipped
        skipped.append((_folder(directory, step), problem))
    return None, skipped


def set_aside(checkpoint: Path) -> Path:
    """Rename a damaged checkpoint, so that it does not count among those to keep. Deletes nothing."""
    target = checkpoint.with_name(f"{DAMAGED}{checkpoint.name}")
    shutil.rmtree(target, ignore_errors=True)
    return checkpoint.rename(target)


def load_weights(checkpoint: Path, model: nn.Module) -> None:
    """Load the weights of a checkpoint into a model of the same shape. Raises PalavraError otherwise."""
    tensors = _read(checkpoint / WEIGHTS)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise PalavraError(f"{checkpoint} belongs to another model than the recipe's: {reason}") from None


def load_checkpoint(checkpoint: Path, model: nn.Module, optimizers: Optimizers) -> RunState:
    """Restore model and optimizer in place, and return the state of the run."""
    load_weights(checkpoint, model)
    try:
        optimizers.load_state(_read(checkpoint / OPTIMIZER))
        values: dict[str, Any] = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
        state = RunState(**{**values, "cursor": Cursor.from_json(values["cursor"])})
        return replace(state, length=None if values.get("length") is None else RunLength(**values["length"]))
    except (KeyError, TypeError, ValueError) as error:
        raise PalavraError(
            f"{checkpoint} belongs to another optimizer or version ({error}): resume with the run's own palavra.toml"
        ) from None


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise PalavraError(f"{path} cannot be read ({error}): remove its folder to use an earlier one") from None
