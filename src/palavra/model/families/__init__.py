"""Model families: how one neutral `ModelConfig` and its parameters are written by Hugging Face `transformers`.

A family is data: functions between configurations and one table of parameter names. Nothing else in the
package knows a family's name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from palavra.errors import PalavraError
from palavra.model.config import ModelConfig
from palavra.model.families import bert, gpt2, llama, modernbert
from palavra.model.families.storage import Keys

HuggingFaceConfig = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """`read` and `write` convert configurations; `keys` maps each parameter of ours to the names it has in
    `transformers` (see `storage`); `repeats` maps names that hold a second copy there to the name of the first;
    `new` makes a fresh configuration. A `causal` family predicts the next token, the others hidden ones."""

    read: Callable[[Mapping[str, Any]], ModelConfig]
    write: Callable[[ModelConfig], HuggingFaceConfig]
    keys: Callable[[ModelConfig], Keys]
    repeats: Callable[[ModelConfig], dict[str, str]]
    new: Callable[..., ModelConfig]
    causal: bool = False


FAMILIES = {
    "modernbert": Family(modernbert.read, modernbert.write, modernbert.keys, modernbert.repeats, modernbert.new),
    "bert": Family(bert.read, bert.write, bert.keys, bert.repeats, bert.new),
    "llama": Family(llama.read, llama.write, llama.keys, llama.repeats, llama.new, causal=True),
    "gpt2": Family(gpt2.read, gpt2.write, gpt2.keys, gpt2.repeats, gpt2.new, causal=True),
}


def family_named(name: object, where: str) -> Family:
    """The family of that name. Raises PalavraError naming `where` and the families there are."""
    if not isinstance(name, str) or name not in FAMILIES:
        raise PalavraError(f"{where}: model type {name!r} is not supported; use one of {', '.join(FAMILIES)}")
    return FAMILIES[name]
