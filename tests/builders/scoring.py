"""Small models of both kinds on a few sentences, for tests of likelihoods."""

from builders.models import CPU, build_causal_model, build_model, model_config
from palavra.inference.causal import CausalModel
from palavra.model.heads import MaskedLanguageModel
from palavra.tokenizer import Tokenizer

SENTENCES = ["O rato roeu a roupa do rei de Roma.", "A águia voa alto no céu azul.", "O gato preto correu pela casa."]
TEXTS = [*SENTENCES, "rato", "", "desconhecido de 漢字", "O rato roeu a roupa. " * 2]


def masked_model(tokenizer: Tokenizer, family: str = "modernbert") -> MaskedLanguageModel:
    """A masked model with the vocabulary of a tokenizer."""
    return build_model(model_config(family, vocab_size=tokenizer.vocab_size))


def causal_model(tokenizer: Tokenizer, family: str = "llama", context: int = 64) -> CausalModel:
    """A causal model with its tokenizer, ready for use."""
    config = model_config(family, vocab_size=tokenizer.vocab_size, context=context)
    return CausalModel(build_causal_model(config), tokenizer, CPU)
