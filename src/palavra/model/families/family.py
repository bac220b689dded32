"""What a model family is made of: two-way tables between `ModelConfig` and the files of `transformers`.

A family's own file fills these tables in. What no table can say, such as a nested entry of `config.json`, is a pair of
small functions there, `read_rest` and `write_rest`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args, get_type_hints

from palavra.model.config import Activation, HeadConfig, ModelConfig, check_sizes
from palavra.model.families.parsing import activation, activation_name, flag, number, token_id
from palavra.model.families.storage import Keys, Stored, stored
from palavra.model.families.windows import MOST_LAYERS

Values = Mapping[str, Any]
# The `AutoModelFor...` classes of `transformers` that a task head can be saved for.
Form = Literal["SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice"]

FIELD_TYPES = get_type_hints(ModelConfig)


class Key(NamedTuple):
    """An entry of `config.json`: its name, and the value that it has if absent (None: it is required)."""

    name: str
    default: Any = None


# Entries that every family has under the same name.
COMMON = {"vocab_size": Key("vocab_size"), "initializer_range": Key("initializer_range", 0.02)}
# The names of the sizes in most families.
SIZES = {
    "hidden_size": Key("hidden_size"),
    "num_layers": Key("num_hidden_layers"),
    "num_heads": Key("num_attention_heads"),
    "intermediate_size": Key("intermediate_size"),
}


@dataclass(frozen=True, kw_only=True)
class TaskFormat:
    """The head that `transformers` puts on a family for labelled tasks (`AutoModelFor...`).

    `prefix` starts the class names; `forms` are those that exist. `own` gives the head's configuration, `poolings` the
    values of `pooling` that the classes support, `keys` the stored names of its parts (`layers.0` the hidden layer,
    `output` the last one, without a bias in the forms of `unbiased`). `bodies`: names of the body in forms whose class
    gives it another than `Family.body`. `config` and `read` convert what `config.json` says of the head.
    """

    prefix: str
    own: Callable[[ModelConfig, Form], HeadConfig]
    poolings: tuple[str, ...]
    keys: Callable[[Form], dict[str, str]]
    config: Callable[[HeadConfig], dict[str, Any]]
    read: Callable[[Values], HeadConfig]
    forms: tuple[Form, ...] = get_args(Form)
    unbiased: tuple[Form, ...] = ()
    bodies: Mapping[Form, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Family:
    """One model family as `transformers` stores it.

    `architecture`: the class that a pretrained model is saved for, in which the body is called `body`. `fixed`: the
    fields that all models of the family share. `config`: field of `ModelConfig` -> entry of `config.json`, converted by
    the field's type. `weights`: our modules -> theirs; `layer_weights` likewise inside each layer, whose prefix there
    is `layers`; several names are the parts of one module of ours. The matrices of `transposed` modules are stored as
    (in, out), the rows of `interleaved` ones head by head (see `Stored`). `tied_head_bias`: where the head's bias is
    stored if the embeddings are tied; if they are not, a copy of it is stored there. `older_names`: what entries of
    `config.json` were called before -> what they are called. `proportions`: what a new model takes from its
    `num_layers`, `num_heads`, `context` and `pad_id`. `task_format`: the heads for labelled tasks.
    """

    name: str
    architecture: str
    body: str
    fixed: Mapping[str, Any]
    config: Mapping[str, Key]
    weights: Mapping[str, str]
    task_format: TaskFormat
    layers: str
    layer_weights: Mapping[str, tuple[str, ...]]
    transposed: tuple[str, ...] = ()
    interleaved: tuple[str, ...] = ()
    tied_head_bias: str | None = None
    older_names: Mapping[str, str] = field(default_factory=dict)
    read_rest: Callable[[Values], dict[str, Any]] = field(default=lambda values: {})
    write_rest: Callable[[ModelConfig], dict[str, Any]] = field(default=lambda config: {})
    proportions: Callable[[Values], dict[str, Any]] = field(default=lambda values: {})

    def new(
        self, *, vocab_size: int, hidden_size: int, num_layers: int, num_heads: int, context: int,
        intermediate_size: int | None = None, **changes: Any,
    ) -> ModelConfig:  # fmt: skip
        """Return the configuration of a new model, with the family's published proportions."""
        inner = 4 * hidden_size
        if self.fixed["gated"]:  # two thirds of it: a gated part has three matrices, a plain one two
            inner = -(-2 * inner // 3 // 32) * 32
        sizes = {"hidden_size": hidden_size, "num_layers": num_layers, "num_heads": num_heads, "context": context}
        check_sizes({**sizes, "vocab_size": vocab_size})
        values = {"layer_kinds": ("global",) * num_layers, **self.fixed, **sizes, "vocab_size": vocab_size}
        own = self.proportions({**sizes, "pad_id": changes.get("pad_id")})
        if changes.get("pad_id") is None:
            changes.pop("pad_id", None)
        values |= {"intermediate_size": intermediate_size or inner, **own}
        return ModelConfig(family=self.name, **{**values, **changes})

    def read(self, values: Values) -> ModelConfig:
        """Return the configuration of a `config.json`. Raises PalavraError for values that are not supported."""
        older = {name: values[old] for old, name in self.older_names.items() if old in values}
        values = {**older, **values}
        rest = self.read_rest(values)
        found = {name: _parse(FIELD_TYPES[name], values, key) for name, key in {**COMMON, **self.config}.items()}
        kinds = ("global",) * min(found["num_layers"], MOST_LAYERS)
        found = {"layer_kinds": kinds, "pad_id": token_id(values, "pad_token_id"), **self.fixed, **found, **rest}
        return ModelConfig(family=self.name, **found)

    def write(self, config: ModelConfig) -> dict[str, Any]:
        """Return the `config.json` of a model of this family; undoes `read`."""
        entries = {key.name: getattr(config, name) for name, key in {**COMMON, **self.config}.items()}
        for name, key in self.config.items():
            if FIELD_TYPES[name] == Activation:
                entries[key.name] = activation_name(getattr(config, name))
        return {"architectures": [self.architecture], "model_type": self.name, **entries, **self.write_rest(config)}

    def keys(self, config: ModelConfig) -> Keys:
        """Map each of our parameter names to where `architecture` stores it; some may not exist in this model."""
        modules: dict[str, tuple[str, ...]] = {ours: (theirs,) for ours, theirs in self.weights.items()}
        for i in range(config.num_layers):
            for ours, theirs in self.layer_weights.items():
                modules[f"transformer.layers.{i}.{ours}"] = tuple(f"{self.layers}.{i}.{name}" for name in theirs)
        units = config.head_width
        projected = config.num_heads * units, config.shared_heads * units, config.shared_heads * units
        found = {}
        for ours, theirs in modules.items():
            sizes = projected if ours.endswith("qkv") and len(theirs) == 3 else ()
            heads = config.num_heads if self.interleaved and ours.endswith(self.interleaved) else 0
            for leaf in ("weight", "bias"):
                transposed = leaf == "weight" and ours.endswith(self.transposed)
                found[f"{ours}.{leaf}"] = Stored(tuple(f"{name}.{leaf}" for name in theirs), sizes, transposed, heads)
        if self.tied_head_bias and config.tied_embeddings:
            found["head.bias"] = Stored((self.tied_head_bias,))
        return found

    def body_keys(self, config: ModelConfig, form: Form | None = None) -> Keys:
        """Map the names of the body's parameters to where the class of a `form` stores them (None: `architecture`)."""
        keys = {name: stored(key) for name, key in self.keys(config).items() if name.startswith("transformer.")}
        other = None if form is None else self.task_format.bodies.get(form)
        if other is None:
            return keys
        own = f"{self.body}."
        return {
            name: replace(key, names=tuple(f"{other}.{part.removeprefix(own)}" for part in key.names))
            for name, key in keys.items()
        }

    def repeats(self, config: ModelConfig) -> dict[str, str]:
        """Map the names that hold a second copy of a parameter to the name of the first."""
        if self.tied_head_bias is None or config.tied_embeddings:
            return {}
        return {self.tied_head_bias: f"{self.weights['head']}.bias"}


def _parse(kind: Any, values: Values, key: Key) -> Any:
    """Return an entry of `config.json` as a value of its field's type."""
    if kind == Activation:
        return activation(values, *key)
    return flag(values, *key) if kind is bool else number(values, key.name, kind, key.default)
