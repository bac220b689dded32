"""Checkpoints: the full state of a run, written atomically and loaded only if all hashes match."""

import math
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from palavra.data.packing import Cursor, PackingTally
from palavra.errors import OptionNaming, PalavraError
from palavra.files import atomic_write_tensors, atomic_write_text, sha256_of_file, sync_directory
from palavra.training.optimizers import Optimizers
from palavra.training.run_length import RunLength
from palavra.training.throughput import LineSums
from palavra.typed_json import Count, Duration, json_text, other_keys, read_json

WEIGHTS, OPTIMIZER, STATE, CHECKSUMS = "weights.safetensors", "optimizer.safetensors", "state.json", "checksums.json"
PREFIX, PARTIAL, DAMAGED = "step-", ".partial-", "damaged-"
_STEP = "(0|[1-9][0-9]{0,17})"
_NAME = re.compile(PREFIX + _STEP)


class CheckpointError(OptionNaming):
    """The first checkpoint of a run cannot be written; continuing would risk the whole run."""

    exit_code = 1


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The progress of a run, apart from weights and optimizer.

    Masks and dropout are drawn from (seed, step), and the packer's buffer is part of `cursor`, so there is no other
    random state. `tokens`, `documents` (summed over steps) and `seconds` are totals; `best_*` is the best validation so
    far (the lowest score, infinite if it is not defined, and of equal ones the lowest `best_loss`); the monitor
    compares with `smoothed_loss` and `first_loss`; `since_line` is what the next log line is the mean of; `optimizer`
    names the one whose state the checkpoint holds; bit-for-bit equality also depends on `threads` and `torch`.
    `elapsed` is `seconds` with validations and checkpoints; `length` replaces the recipe's, `planned_steps`, in a run
    that was planned again.
    """

    step: Count
    cursor: Cursor
    tokens: Count = 0
    documents: Count = 0
    seconds: Duration = 0.0
    best_step: Count | None = None
    best_score: float | None = None
    best_loss: float = 0.0
    smoothed_loss: float | None = None
    first_loss: float | None = None
    packing: PackingTally | None = None
    since_line: LineSums = field(default_factory=LineSums)
    optimizer: str = ""
    threads: Count = field(default_factory=torch.get_num_threads)
    torch: str = torch.__version__
    elapsed: Duration = 0.0
    planned_steps: Count | None = None
    length: RunLength | None = None


@dataclass(frozen=True, kw_only=True)
class _Checksums:
    """`checksums.json`: the SHA-256 of each file by its name."""

    hashes: Mapping[str, str] = other_keys()


# Whether a state belongs to the run's data.
Fits = Callable[[RunState], bool]


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
        atomic_write_text(partial / STATE, json_text(asdict(state)))
        hashes = {name: sha256_of_file(partial / name) for name in (WEIGHTS, OPTIMIZER, STATE)}
        atomic_write_text(partial / CHECKSUMS, json_text(hashes, indent=2) + "\n")
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
    names = [_NAME.fullmatch(path.name) for path in directory.glob(f"{PREFIX}*") if path.is_dir()]
    return sorted(int(name[1]) for name in names if name)


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
    return re.fullmatch(rf"({re.escape(PARTIAL)}|({DAMAGED})?{PREFIX}){_STEP}", path.name) is not None


def read_state(checkpoint: Path) -> RunState:
    """Return the state in a checkpoint. Raises PalavraError if it is damaged, or of another step than its folder's."""
    state = read_json(RunState, checkpoint / STATE)
    if checkpoint.name != f"{PREFIX}{state.step}" or (state.best_step or 0) > state.step:
        raise PalavraError(f"{checkpoint / STATE}: step {state.step} (best {state.best_step}) does not belong there")
    # JSON has no infinity: the score of a best step that has none was not defined.
    undefined = state.best_step is not None and state.best_score is None
    return replace(state, best_score=math.inf) if undefined else state


def damage(checkpoint: Path, fits: Fits = lambda state: True) -> str | None:
    """Return what is damaged in a checkpoint, or None if every file exists and matches its hash, and the state is one
    of this run."""
    try:
        hashes = read_json(_Checksums, checkpoint / CHECKSUMS).hashes
        for name in (WEIGHTS, OPTIMIZER, STATE):
            if sha256_of_file(checkpoint / name) != hashes.get(name):
                return f"{name} does not have its recorded hash"
        if not fits(read_state(checkpoint)):
            return f"the place in the data that {STATE} names does not exist"
    except (OSError, PalavraError) as error:
        return str(error)
    return None


def newest_whole(directory: Path, fits: Fits = lambda state: True) -> tuple[Path | None, list[tuple[Path, str]]]:
    """Return the newest undamaged checkpoint, and each newer one with its damage."""
    skipped: list[tuple[Path, str]] = []
    for step in reversed(steps_saved(directory)):
        problem = damage(_folder(directory, step), fits)
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
    except (KeyError, ValueError) as error:
        raise PalavraError(
            f"{checkpoint} belongs to another optimizer or version ({error}): resume with the run's own palavra.toml"
        ) from None
    return read_state(checkpoint)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise PalavraError(f"{path} cannot be read ({error}): remove its folder to use an earlier one") from None
