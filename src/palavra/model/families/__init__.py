"""Model families: how `transformers` stores a `ModelConfig` and the parameters that go with it.

A family is data (see `family.Family`). Nothing else in the package knows a family by name.
"""

from palavra.errors import PalavraError
from palavra.model.families.bert import BERT
from palavra.model.families.family import Family
from palavra.model.families.gpt2 import GPT2
from palavra.model.families.llama import LLAMA
from palavra.model.families.modernbert import MODERNBERT

FAMILIES = {family.name: family for family in (MODERNBERT, BERT, LLAMA, GPT2)}


def family_named(name: object, where: str) -> Family:
    """Return the family of that name. Raises PalavraError that names `where` and the known families."""
    if not isinstance(name, str) or name not in FAMILIES:
        raise PalavraError(f"{where}: model type {name!r} is not supported; use one of {', '.join(FAMILIES)}")
    return FAMILIES[name]
