"""Model families: how `transformers` stores a `ModelConfig` and the parameters that go with it.

A family is data (see `family.Family`). Nothing else in the package knows a family by name.
"""

from palavra.errors import PalavraError
from palavra.model.families.bert import BERT
from palavra.model.families.camembert import CAMEMBERT
from palavra.model.families.deberta_v2 import DEBERTA_V2
from palavra.model.families.distilbert import DISTILBERT
from palavra.model.families.electra import ELECTRA
from palavra.model.families.eurobert import EUROBERT
from palavra.model.families.family import Family
from palavra.model.families.gemma3_text import GEMMA3_TEXT
from palavra.model.families.gpt2 import GPT2
from palavra.model.families.gpt_neox import GPT_NEOX
from palavra.model.families.llama import LLAMA
from palavra.model.families.mistral import MISTRAL
from palavra.model.families.modernbert import MODERNBERT
from palavra.model.families.modernbert_decoder import MODERNBERT_DECODER
from palavra.model.families.mpnet import MPNET
from palavra.model.families.nomic_bert import NOMIC_BERT
from palavra.model.families.qwen2 import QWEN2
from palavra.model.families.qwen3 import QWEN3
from palavra.model.families.roberta import ROBERTA
from palavra.model.families.smollm3 import SMOLLM3
from palavra.model.families.xlm_roberta import XLM_ROBERTA

_ALL = (
    MODERNBERT, BERT, DISTILBERT, ROBERTA, XLM_ROBERTA, CAMEMBERT, MPNET, DEBERTA_V2, ELECTRA, EUROBERT, NOMIC_BERT,
    LLAMA, MISTRAL, QWEN2, QWEN3, SMOLLM3, GEMMA3_TEXT, GPT2, GPT_NEOX, MODERNBERT_DECODER,
)  # fmt: skip
FAMILIES = {family.name: family for family in _ALL}


def _bodies() -> list[str]:
    others = [name for family in FAMILIES.values() for name in family.task_format.bodies.values()]
    return sorted({*(family.body for family in FAMILIES.values()), *others})


# Names of the body inside a model with a head.
BODIES = _bodies()


def family_named(name: object, where: str) -> Family:
    """Return the family of that name. Raises PalavraError that names `where` and the known families."""
    if not isinstance(name, str) or name not in FAMILIES:
        raise PalavraError(f"{where}: model type {name!r} is not supported; use one of {', '.join(FAMILIES)}")
    return FAMILIES[name]
