"""`modules.json` of sentence-transformers: how token vectors become the vector of a text, read and written."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from palavra.errors import PalavraError
from palavra.files import atomic_write_tensors, atomic_write_text, read_text
from palavra.model.config import LARGEST, ModelConfig, Pooling
from palavra.model.directory import LARGEST_JSON, WEIGHTS, read_weights
from palavra.model.pooling import PoolingMode, pool
from palavra.model.vector_layers import Dense, LayerNorm, Normalize, VectorLayer, Width
from palavra.typed_json import Count, from_json, json_text, other_keys, parse_json

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
MODULES, SETTINGS = "modules.json", "config_sentence_transformers.json"
# The length and case of texts; the first name is the one that is written.
TRANSFORMER_SETTINGS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
# Unknown to sentence-transformers: nobody trained the model for this pooling.
DEFAULT_KEY = "palavra_default_pooling"
_CLASS = re.compile(r"sentence_transformers\.(?:\w+\.)*(\w+)")
# The modes by their flag in earlier versions, in the order in which these concatenate them.
_FLAGS: dict[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# What has no effect on the vectors.
_HARMLESS = {
    "attn_implementation", "dtype", "torch_dtype", "trust_remote_code", "padding_side", "unpad_inputs", "query_length",
    "document_length", "add_pooling_layer", "use_memory_efficient_attention",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SentenceModules:
    """What makes the vector of a text from those of its tokens.

    The poolings of `pooling` are concatenated; `include_prompt`: whether the tokens of a prompt count in them. `layers`
    follow. `prompts` by name stand before every text, `default_prompt` (a name) if none is asked for. `max_length`:
    most tokens of a text, special ones included; None leaves it to the model. `lowercase`: texts are read in lower
    case. `similarity` compares two vectors. `trained`: the model was trained for this pooling, which is not merely the
    default.
    """

    pooling: tuple[PoolingMode, ...]
    include_prompt: bool = True
    layers: tuple[VectorLayer, ...] = ()
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    max_length: int | None = None
    lowercase: bool = False
    similarity: Similarity = "cosine"
    trained: bool = True

    def width(self, hidden_size: int) -> int:
        """Return the width of a text's vector. Raises PalavraError if the modules do not fit together."""
        width = hidden_size * len(self.pooling)
        for layer in self.layers:
            if layer.inputs not in (None, width):
                raise PalavraError(
                    f"the module {layer.kind} reads vectors of {layer.inputs} numbers, and the pooling "
                    f"{'+'.join(self.pooling)} gives {width}: use another --pooling"
                )
            width = layer.outputs or width
        return width

    def __call__(self, hidden: Tensor, lengths: Tensor, skipped: int = 0) -> Tensor:
        """Return the vectors of texts, (S, D') float32, from those of their packed tokens (N, D); see `pool`."""
        hidden = hidden.float()
        out = torch.cat([pool(hidden, lengths, mode, skipped) for mode in self.pooling], dim=-1)
        for layer in self.layers:
            out = layer.to(out.device)(out)
        return out


def default_modules(causal: bool) -> SentenceModules:
    """Return what a model without modules has: the mean, or of a causal model the last token, the only one that has
    seen the whole text. (sentence-transformers does the same, but for GPT-2.)"""
    return SentenceModules(pooling=("lasttoken" if causal else "mean",), trained=False)


# Files


@dataclass(frozen=True)
class _Module:
    type: str
    path: str = ""


@dataclass(frozen=True)
class _Pooling:
    pooling_mode: PoolingMode | tuple[PoolingMode, ...] | None = None
    include_prompt: bool = True
    others: Mapping[str, object] = other_keys()


@dataclass(frozen=True)
class _Dense:
    in_features: Width
    out_features: Width
    bias: bool = True
    activation_function: str | None = "torch.nn.modules.activation.Tanh"
    module_input_name: str = "sentence_embedding"
    module_output_name: str | None = None
    use_residual: bool = False


@dataclass(frozen=True)
class _Normalize:
    module_input_name: str = "sentence_embedding"
    module_output_name: str | None = None


@dataclass(frozen=True)
class _LayerNorm:
    dimension: Width


@dataclass(frozen=True)
class _Transformer:
    max_seq_length: Count | None = None
    do_lower_case: bool = False
    transformer_task: str | None = None
    module_output_name: str | None = None
    modality_config: Mapping[str, Mapping[str, object]] | None = None
    others: Mapping[str, object] = other_keys()


@dataclass(frozen=True)
class _TokenizerLength:
    model_max_length: object = None


@dataclass(frozen=True)
class _Settings:
    model_type: str = "SentenceTransformer"
    prompts: Mapping[str, str | None] | None = None
    default_prompt_name: str | None = None
    similarity_fn_name: Similarity | None = None
    palavra_default_pooling: bool = False


def read_sentence_modules(directory: Path) -> SentenceModules | None:
    """Return what the `modules.json` of a directory describes, None without one.

    Nothing is imported by name. Raises PalavraError for a damaged file, and for modules or settings that are not
    supported.
    """
    listed = _listed(directory)
    if listed is None:
        return None
    kinds = [kind for kind, _ in listed]
    if kinds[:2] != ["Transformer", "Pooling"] or not set(kinds[2:]) <= {"Dense", "Dropout", "LayerNorm", "Normalize"}:
        raise PalavraError(
            f"{directory / MODULES}: {' and '.join(kinds)} are not a Transformer, a Pooling and layers: use a model "
            "that makes one vector a text"
        )
    settings = _settings(directory)
    texts = _transformer(listed[0][1])
    pooling = _pooling(listed[1][1])
    trained = not settings.palavra_default_pooling
    # sentence-transformers gives every model these two.
    prompts = {"query": "", "document": ""} | {name: text or "" for name, text in (settings.prompts or {}).items()}
    if settings.default_prompt_name not in (None, *prompts):
        raise PalavraError(
            f"{directory / SETTINGS}: default_prompt_name is {settings.default_prompt_name}, not one of its prompts"
        )
    return SentenceModules(
        pooling=_modes(pooling),
        include_prompt=pooling.include_prompt,
        layers=tuple(_layer(kind, folder) for kind, folder in listed[2:] if kind != "Dropout"),
        prompts=prompts,
        default_prompt=settings.default_prompt_name,
        max_length=texts.max_seq_length or _tokenizer_length(listed[0][1]) if trained else None,
        lowercase=texts.do_lower_case,
        similarity=settings.similarity_fn_name or "cosine",
        trained=trained,
    )


def sentence_files(directory: Path) -> list[str]:
    """Return the names, in a saved model's directory, of the files that `write_sentence_modules` wrote."""
    layers = [path.relative_to(directory).as_posix() for path in sorted(directory.glob("[1-9]*_*/*"))]
    return [MODULES, SETTINGS, TRANSFORMER_SETTINGS[0], *layers]


def modules_to_keep(directory: Path | None, causal: bool, warn: Callable[[str], None]) -> SentenceModules:
    """Return what a model trained further from `directory` keeps of it: its modules, or the default ones; `warn` is
    told if it has such that are not supported."""
    try:
        found = None if directory is None else read_sentence_modules(directory)
    except PalavraError as error:
        warn(f"{error}; the saved model makes vectors with the default pooling")
        found = None
    return found or default_modules(causal)


def trained_pooling(directory: Path) -> Pooling | None:
    """Return the pooling that a directory of sentence-transformers was trained with, if it is the mean or the maximum.
    Such a model's [CLS] vector was not trained. Raises PalavraError for a damaged file."""
    listed = dict(_listed(directory, known=None) or ())
    if "Pooling" not in listed or _settings(directory).palavra_default_pooling:
        return None
    poolings: dict[tuple[PoolingMode, ...], Pooling] = {("mean",): "mean", ("max",): "max"}
    return poolings.get(_modes(_pooling(listed["Pooling"])))


_KNOWN = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")


def _listed(directory: Path, known: Iterable[str] | None = _KNOWN) -> list[tuple[str, Path]] | None:
    """Return the name and folder of each module that `modules.json` lists, None without such a file."""
    path = directory / MODULES
    if not path.is_file():
        return None
    found = []
    for module in from_json(tuple[_Module, ...], parse_json(read_text(path, LARGEST_JSON), path), str(path)):
        kind = _CLASS.fullmatch(module.type)
        if known is not None and (kind is None or kind[1] not in known):
            raise PalavraError(f"{path}: the module {module.type} is not supported; known: {', '.join(known)}")
        if Path(module.path).name != module.path or module.path == "..":
            raise PalavraError(f"{path}: the path {module.path} is not a folder beside it: download the model again")
        found.append((kind[1] if kind else module.type, directory / module.path))
    return found


def _read(kind: type[Any], path: Path) -> Any:
    """Return a settings file as a record; an absent one is empty."""
    values = parse_json(read_text(path, LARGEST_JSON), path) if path.is_file() else {}
    return from_json(kind, values, str(path))


def _settings(directory: Path) -> _Settings:
    settings: _Settings = _read(_Settings, directory / SETTINGS)
    if settings.model_type != "SentenceTransformer":
        raise PalavraError(f"{directory / SETTINGS}: a {settings.model_type} does not make one vector a text")
    return settings


def _transformer(folder: Path) -> _Transformer:
    path = next((folder / name for name in TRANSFORMER_SETTINGS if (folder / name).is_file()), folder / SETTINGS)
    found: _Transformer = _read(_Transformer, path) if path.name != SETTINGS else _Transformer()
    plain = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    refused = [
        *(key for key, value in found.others.items() if not _harmless(key, value)),
        *(["transformer_task"] if found.transformer_task not in (None, "feature-extraction") else []),
        *(["module_output_name"] if found.module_output_name not in (None, "token_embeddings") else []),
        *(["modality_config"] if found.modality_config not in (None, plain) else []),
    ]
    if refused:
        raise PalavraError(f"{path}: the setting {refused[0]} is not supported: embed with sentence-transformers")
    return found


def _harmless(key: str, value: object) -> bool:
    inner = set(value) if isinstance(value, Mapping) and re.fullmatch(r"\w+_(kwargs|args)", key) else {key}
    return not value or inner <= _HARMLESS


def _tokenizer_length(folder: Path) -> int | None:
    """Return where later versions keep the length."""
    length = _read(_TokenizerLength, folder / "tokenizer_config.json").model_max_length
    return length if isinstance(length, int) and 0 < length <= LARGEST["context"] else None


def _pooling(folder: Path) -> _Pooling:
    found: _Pooling = _read(_Pooling, folder / "config.json")
    return found


def _modes(pooling: _Pooling) -> tuple[PoolingMode, ...]:
    """Return the modes in the order in which they are concatenated."""
    if pooling.pooling_mode:
        return (pooling.pooling_mode,) if isinstance(pooling.pooling_mode, str) else pooling.pooling_mode
    return tuple(mode for flag, mode in _FLAGS.items() if pooling.others.get(flag) is True) or ("mean",)


def _layer(kind: str, folder: Path) -> VectorLayer:
    """Read a layer with its weights."""
    path = folder / "config.json"
    made: VectorLayer = Normalize()
    with torch.device("meta"):  # the sizes are checked against the weights before anything is allocated
        if kind == "LayerNorm":
            made = LayerNorm(_read(_LayerNorm, path).dimension)
        elif kind == "Dense":
            dense: _Dense = _read(_Dense, path)
            _check_names(dense, path)
            try:
                made = Dense(
                    dense.in_features, dense.out_features, dense.bias, dense.activation_function, dense.use_residual
                )
            except PalavraError as error:
                raise PalavraError(f"{path}: {error}") from None
        else:
            _check_names(_read(_Normalize, path), path)
            return made
    names = list(made.state_dict())
    state = read_weights(made, {name: (name,) for name in names}, {}, folder)
    missing = [name for name in names if name not in state]
    if missing:
        raise PalavraError(f"{folder}: the weights lack {missing[0]}: download the model again")
    made.load_state_dict(state, assign=True)
    return made.eval().requires_grad_(False)


def _check_names(names: _Dense | _Normalize, path: Path) -> None:
    """Raise PalavraError for a layer that reads or writes anything but the vector of a text."""
    for key in ("module_input_name", "module_output_name"):
        if getattr(names, key) not in (None, "sentence_embedding"):
            raise PalavraError(f"{path}: {key} {getattr(names, key)} is not supported, only sentence_embedding")


def write_sentence_modules(modules: SentenceModules, directory: Path, config: ModelConfig) -> None:
    """Write `modules.json` and what it names beside a saved model, each file atomically, as every version of
    sentence-transformers reads it."""
    length = None if modules.max_length is None else min(modules.max_length, config.context)
    width = {"word_embedding_dimension": config.hidden_size, "include_prompt": modules.include_prompt}
    flags = {flag: mode in modules.pooling for flag, mode in _FLAGS.items()}
    ordered = modules.pooling == tuple(mode for mode in _FLAGS.values() if mode in modules.pooling)
    contents: Sequence[tuple[str, Mapping[str, Any]]] = [
        ("Pooling", width | (flags if ordered else {"pooling_mode": list(modules.pooling)})),
        *((layer.kind, layer.settings()) for layer in modules.layers),
    ]
    listed = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for number, (kind, values) in enumerate(contents, 1):
        folder = directory / f"{number}_{kind}"
        folder.mkdir(exist_ok=True)
        _write(folder / "config.json", values)
        if number > 1 and (state := modules.layers[number - 2].state_dict()):
            atomic_write_tensors(folder / WEIGHTS, {name: tensor.cpu() for name, tensor in state.items()})
        listed.append({"idx": number, "name": str(number), "path": folder.name,
                       "type": f"sentence_transformers.models.{kind}"})  # fmt: skip
    _write(directory / TRANSFORMER_SETTINGS[0], {"max_seq_length": length, "do_lower_case": modules.lowercase})
    settings = {
        "model_type": "SentenceTransformer",
        "prompts": dict(modules.prompts),
        "default_prompt_name": modules.default_prompt,
        "similarity_fn_name": modules.similarity,
    }
    _write(directory / SETTINGS, settings | ({} if modules.trained else {DEFAULT_KEY: True}))
    _write(directory / MODULES, listed)


def _write(path: Path, values: object) -> None:
    atomic_write_text(path, json_text(values, indent=2) + "\n")
