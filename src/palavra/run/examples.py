"""A few of a run's own texts, and what its model makes of them, for the report."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from palavra.data.shards import Corpus, Documents
from palavra.inference.causal import CausalModel
from palavra.inference.model import LanguageModel
from palavra.model.compute import eager
from palavra.tokenizer import Tokenizer

EXAMPLES = 8
EXAMPLES_LOOKED_AT = 1000
LONGEST_EXAMPLE = 40
# Of the texts that a model goes on with: words given, and tokens added.
PROMPT_WORDS = 5
CONTINUED_TOKENS = 60
TEMPERATURE = 0.8


def filled(model: LanguageModel, corpus: Corpus) -> list[dict[str, Any]]:
    """Sentences with a blank (`text`), and what the model would put there (`fills`)."""
    texts = blank_texts(corpus, model.tokenizer, model.model.config.context)
    found = model.fill(texts, top=5) if texts else []
    return [
        {"text": text, "fills": [[asdict(fill) for fill in blank.fills] for blank in blanks]}
        for text, blanks in zip(texts, found, strict=True)
    ]


def continued(model: CausalModel, corpus: Corpus) -> list[dict[str, Any]]:
    """Beginnings of texts (`prompt`), and how the model goes on (`text`), drawn at temperature 0.8; the `reason` it
    ended is that of `Continuation`."""
    context = model.model.config.context
    prompts = opening_texts(corpus, model.tokenizer, context)
    if not prompts:
        return []
    with eager():
        found = model.generate(prompts, max_tokens=min(CONTINUED_TOKENS, context // 2), temperature=TEMPERATURE)
    return [
        {"prompt": prompt, "text": one.text, "reason": one.reason}
        for prompt, (one,) in zip(prompts, found, strict=True)
    ]


def blank_texts(corpus: Corpus, tokenizer: Tokenizer, context: int) -> list[str]:
    """Short held-out (or else training) documents with one whole word replaced by the mask."""
    documents = _shown(corpus)
    found: list[str] = []
    longest = min(LONGEST_EXAMPLE, context - 2)
    for index in range(min(len(documents), EXAMPLES_LOOKED_AT)):
        ids = _beginning(documents, index, longest)
        starts = _word_starts(ids, tokenizer)
        if len(starts) < 5:
            continue
        # The word in the middle: seldom a name, never the first.
        middle = len(starts) // 2
        begin, end = starts[middle], starts[middle + 1]
        text = f"{tokenizer.decode(ids[:begin])} {tokenizer.mask_token}{tokenizer.decode(ids[end:])}"
        one_line = "\n" not in text and text.count(tokenizer.mask_token) == 1
        # Encoded anew, a text cut in the middle of a word may need another token or two.
        if one_line and end - begin == 1 and len(tokenizer.encode_prompt(text)) <= context - 2:
            found.append(text)
        if len(found) == EXAMPLES:
            break
    return found


def opening_texts(corpus: Corpus, tokenizer: Tokenizer, context: int) -> list[str]:
    """The first words of held-out (or else training) documents, each different."""
    documents = _shown(corpus)
    found: dict[str, None] = {}
    longest = max(1, min(LONGEST_EXAMPLE, context // 2) - 1)
    for index in range(min(len(documents), EXAMPLES_LOOKED_AT)):
        ids = _beginning(documents, index, longest)
        starts = [place for place in _word_starts(ids, tokenizer) if place > 0]
        end = starts[min(PROMPT_WORDS, len(starts)) - 1] if starts else len(ids)
        text = tokenizer.decode(ids[:end])
        # A prompt is encoded anew, and must still leave room.
        if text.strip() and len(tokenizer.encode(text)) < context // 2:
            found[text] = None
        if len(found) == EXAMPLES:
            break
    return list(found)


def _shown(corpus: Corpus) -> Documents:
    return corpus.valid if len(corpus.valid) else corpus.train


def _beginning(documents: Documents, index: int, longest: int) -> list[int]:
    ids: list[int] = documents.tokens(index, 0, min(int(documents.lengths[index]), longest)).tolist()
    return ids


def _word_starts(ids: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    return [i for i, token in enumerate(ids) if tokenizer.starts_word[token]]
