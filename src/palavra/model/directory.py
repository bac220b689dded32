"""Model directories: weights and configuration in the format of `transformers`, with nothing executable."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from palavra.errors import PalavraError, lack_of_memory
from palavra.files import atomic_write_tensors, atomic_write_text
from palavra.model.config import ModelConfig
from palavra.model.families import BODIES, family_named
from palavra.model.families.parsing import flag
from palavra.model.families.storage import Keys, stored
from palavra.model.finite import all_finite
from palavra.model.heads import CausalLanguageModel, MaskedLanguageModel, VocabularyModel
from palavra.typed_json import json_text, read_json_object

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
# Unknown to `transformers`, where such a model's logits are those of the next token.
SHIFTED = "masked_next_token_prediction"
# Where a finished run writes its objective.
OBJECTIVE_KEY = "pretraining_objective"
LARGEST_JSON = 16 * 2**20
# Names of the body inside a model with a head.
BODY_PREFIXES = tuple(f"{name}." for name in BODIES)
TOKENS = "transformer.embeddings.token.weight"
# Constants that old versions of `transformers` saved among the weights.
_CONSTANTS = re.compile(r"(position_ids|token_type_ids|inv_freq|attn\.bias|masked_bias)$")


M = TypeVar("M", bound=VocabularyModel)


class LoadedModel(NamedTuple, Generic[M]):
    """A model and the names of its parameters that the directory lacks, which keep their initialization."""

    model: M
    missing: tuple[str, ...]


def save_model(model: VocabularyModel, directory: Path, extra: Mapping[str, Any] | None = None) -> None:
    """Write `model.safetensors` (float32) and `config.json`, each atomically. `extra` adds entries to `config.json`,
    such as the token ids of roles."""
    family = family_named(model.config.family, str(directory))
    write_weights(model, family.keys(model.config), family.repeats(model.config), directory)
    write_config(model.config, directory, extra)


def write_weights(module: nn.Module, keys: Keys, repeats: Mapping[str, str], directory: Path) -> None:
    """Write the parameters of `module` as `model.safetensors` (float32), atomically; create the folder if needed.
    `keys`: where each is stored, if it is at all. `repeats`: name of a second copy -> name of the first."""
    directory.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        if name in keys:
            parts = stored(keys[name]).split(tensor.detach().to("cpu", torch.float32))
            tensors |= {key: part.contiguous() for key, part in parts.items()}
    tensors |= {repeat: tensors[original].clone() for repeat, original in repeats.items()}
    atomic_write_tensors(directory / WEIGHTS, tensors, {"format": "pt"})


def write_config(config: ModelConfig, directory: Path, extra: Mapping[str, Any] | None = None) -> None:
    """Write `config.json` atomically; `extra` is as in `save_model`."""
    values = family_named(config.family, str(directory)).write(config)
    values |= {"dtype": "float32", "pad_token_id": config.pad_id} | ({SHIFTED: True} if config.mntp else {})
    values |= extra or {}
    atomic_write_text(directory / CONFIG, json_text(dict(sorted(values.items())), indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of bounded size. Raises PalavraError that names the file."""
    if not path.is_file():
        if (path.parent / "checkpoints").is_dir():
            raise PalavraError(f"{path.parent} holds a run that is not finished: resume it (--resume) first")
        raise PalavraError(f"{path} does not exist: {path.parent} is not a model directory")
    return read_json_object(path, LARGEST_JSON, "write or download it again")


def read_config(directory: Path) -> ModelConfig:
    """Read the configuration of a model directory of any supported family."""
    path = directory / CONFIG
    values = read_json(path)
    family = family_named(values.get("model_type"), str(path))
    try:
        return replace(family.read(values), mntp=flag(values, SHIFTED, False))
    except PalavraError as error:
        raise PalavraError(f"{path}: {error}") from None


def learned_both(directory: Path) -> bool:
    """Return whether the masked model of a directory was also trained on next-token prediction."""
    return read_json(directory / CONFIG).get(OBJECTIVE_KEY) == "causal+masked"


def load_masked_model(directory: Path) -> LoadedModel[MaskedLanguageModel]:
    """Load a masked language model that Palavra or `transformers` wrote.

    Only safetensors are read, and every tensor's shape is checked before it is used. The body must be complete; a
    missing head (a bare encoder) is listed in `missing`. Raises PalavraError otherwise, and for a causal model.
    """
    config = read_config(directory)
    if config.causal:
        kind = f"a causal language model ({config.family})"
        raise PalavraError(f"{directory} is {kind}: it can generate and score, not fill blanks or embed")
    return _load(directory, config, MaskedLanguageModel)


def load_causal_model(directory: Path) -> LoadedModel[CausalLanguageModel]:
    """Load a causal language model that Palavra or `transformers` wrote; see `load_masked_model`."""
    config = read_config(directory)
    if not config.causal:
        kind = f"a masked language model ({config.family})"
        raise PalavraError(f"{directory} is {kind}: it can fill blanks, embed and score, not generate")
    return _load(directory, config, CausalLanguageModel)


def _load(directory: Path, config: ModelConfig, build: Callable[[ModelConfig], M]) -> LoadedModel[M]:
    family = family_named(config.family, str(directory))
    separate = replace(config, tied_embeddings=False)
    keys = family.keys(separate)
    # Check the weights before allocating: the sizes that a foreign configuration claims may not fit in memory.
    with torch.device("meta"):
        claimed = build(separate)
    state = read_weights(claimed, keys, family.repeats(separate), directory)
    if config.tied_embeddings and not _tie(state):
        config = separate
    with torch.device("meta"):
        missing = tuple(name for name in build(config).state_dict() if name not in state)
    needed = [name for name in missing if not name.startswith("head.")]
    if "head.weight" in missing and any(name.startswith("head.") for name in state):
        needed.append("head.weight")
    if needed:
        lacking = stored(keys[needed[0]]).names[0]
        raise PalavraError(f"{directory}: the weights lack {lacking} ({len(needed)} tensors in all)")
    model = build(config)
    model.load_state_dict(state, strict=False)
    return LoadedModel(model, missing)


def _tie(state: dict[str, Tensor]) -> bool:
    """Make one matrix of the token embedding and the head's, as `transformers` does: either may be absent. Return
    whether they are one; two that differ stay, whatever `config.json` says."""
    matrix = state.get("head.weight")
    if matrix is not None and not torch.equal(state.setdefault(TOKENS, matrix), matrix):
        return False
    state.pop("head.weight", None)
    return True


def load_weights_into(module: nn.Module, keys: Keys, repeats: Mapping[str, str], directory: Path) -> tuple[str, ...]:
    """Load the parameters of `module` from a model directory and return the names of those that it lacks. These are
    unchanged. `keys`, `repeats` and errors are those of `read_weights`."""
    state = read_weights(module, keys, repeats, directory)
    module.load_state_dict(state, strict=False)
    return tuple(name for name in module.state_dict() if name not in state)


def read_weights(module: nn.Module, keys: Keys, repeats: Mapping[str, str], directory: Path) -> dict[str, Tensor]:
    """Read the parameters of `module` (which may be on the meta device) that a model directory holds, in float32.

    `keys`: where each is stored. `repeats`: names of second copies, which are used if the first is absent. Only
    safetensors are read, and every tensor's shape is checked before it is used. Raises PalavraError for damaged
    weights, for values that are not finite, for other shapes, and for further tensors of these modules or of the body,
    without which the model would not compute what it did where it was saved.
    """
    wanted = {ours: (stored(keys[ours]), tensor) for ours, tensor in module.state_dict().items() if ours in keys}
    expected = {
        key: part.shape for entry, tensor in wanted.values() for key, part in entry.split(tensor.to("meta")).items()
    }
    repeats = {repeat: original for repeat, original in repeats.items() if original in expected}
    found: dict[str, Tensor] = {}
    for key, tensor in _tensors(directory, {*expected, *repeats}):
        original = repeats.get(key, key)
        if tensor.shape != expected[original] or not tensor.is_floating_point():
            raise PalavraError(
                f"{directory}: {key} is {tensor.dtype} of shape {tuple(tensor.shape)}, config.json asks for numbers "
                f"of shape {tuple(expected[original])}: the weights belong to another configuration"
            )
        if key == original or original not in found:
            found[original] = tensor.to(torch.float32)
            if not all_finite(found[original]):
                raise PalavraError(
                    f"{directory}: {key} holds values that are not finite numbers: its training has diverged, or the "
                    "file is damaged; use an earlier checkpoint or download it again"
                )
    whole = {ours: entry for ours, (entry, _) in wanted.items() if all(name in found for name in entry.names)}
    return {ours: entry.join({name: found.pop(name) for name in entry.names}) for ours, entry in whole.items()}


def check_weights(directory: Path) -> None:
    """Raise PalavraError if the weight files of a directory are missing, pickled, or damaged at their beginning."""
    for _ in _tensors(directory, set()):
        pass


def _tensors(directory: Path, wanted: set[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield the wanted tensors of all weight files, by their full names. A bare encoder is saved without the prefix
    that it has inside a larger model."""
    suffixes = {key.split(".", 1)[1]: key for key in wanted if key.startswith(BODY_PREFIXES)}
    parts = {suffix.split(".", 1)[0] for suffix in suffixes} | {key.rpartition(".")[0] for key in wanted if "." in key}
    for path in _weight_files(directory):
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 - not a dict
                    # Checkpoints converted from TensorFlow have gamma and beta.
                    name = key.replace("Norm.gamma", "Norm.weight").replace("Norm.beta", "Norm.bias")
                    full = name if name in wanted else suffixes.get(name, suffixes.get(_inner(name)))
                    if full is not None:
                        yield full, file.get_tensor(key)
                    elif not parts.isdisjoint(_places(name)) and not _CONSTANTS.search(name):
                        raise PalavraError(
                            f"{directory}: the weights hold {name}, for which config.json has no place: they belong to "
                            "another configuration"
                        )
        except (SafetensorError, OSError) as error:
            if lack_of_memory(error):
                raise MemoryError(f"{path}: {error}") from None
            raise PalavraError(f"{path} is damaged ({error}): download it again or use an earlier checkpoint") from None


def _places(name: str) -> tuple[str, str]:
    """Return the part of the body that a tensor belongs to, if it is one of the body, and its module."""
    return _inner(name).split(".", 1)[0], name.rpartition(".")[0]


def _inner(name: str) -> str:
    """Return the name of a tensor in the bare body."""
    return name.split(".", 1)[1] if name.startswith(BODY_PREFIXES) else name


def _weight_files(directory: Path) -> list[Path]:
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if (directory / INDEX).is_file():
        weight_map = read_json(directory / INDEX).get("weight_map")
        names = list(weight_map.values()) if isinstance(weight_map, dict) else []
        plain = [isinstance(name, str) and Path(name).name == name and name != ".." for name in names]
        if not names or not all(plain) or not all((directory / name).is_file() for name in names):
            raise PalavraError(f"{directory / INDEX} does not name weight files of its own folder: download them again")
        return [directory / name for name in sorted(set(names))]
    if list(directory.glob("*.bin")) or list(directory.glob("*.pt")):
        raise PalavraError(
            f"{directory} holds pickled weights, which can run code when read: convert them to {WEIGHTS} with "
            "transformers' save_pretrained first"
        )
    raise PalavraError(f"{directory} has no {WEIGHTS}: it is not a model directory")
