"""Sample texts with the model's output, for the report."""

import re
from itertools import islice

from palavra.data.shards import Corpus, StoredDocuments
from palavra.inference.causal import CausalModel
from palavra.inference.masked import MaskedModel
from palavra.model.compute import eager
from palavra.run_records.pretraining import ContinuedText, FilledText
from palavra.tokenizer import Tokenizer

EXAMPLES = 8
EXAMPLES_LOOKED_AT = 1000
LONGEST_EXAMPLE = 40
FEWEST_WORDS = 4
# Of each document, for sentences.
EXAMPLE_TOKENS_LOOKED_AT = 500
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|\n+")
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
# Of a continuation: words of the prompt, and tokens added.
PROMPT_WORDS = 5
CONTINUED_TOKENS = 60
TEMPERATURE = 0.8


def filled_blanks(model: MaskedModel, corpus: Corpus) -> list[FilledText]:
    """Return sentences with a mask, and the model's best tokens for it."""
    texts = blank_texts(corpus, model.tokenizer, model.model.config.context)
    found = model.fill(texts, top=5) if texts else []
    return [
        FilledText(text=text, fills=tuple(blank.fills for blank in blanks))
        for text, blanks in zip(texts, found, strict=True)
    ]


def continued_openings(model: CausalModel, corpus: Corpus) -> list[ContinuedText]:
    """Return the first words of texts and the model's continuations, sampled at temperature 0.8; `reason` as in
    `Continuation`."""
    context = model.model.config.context
    prompts = opening_texts(corpus, model.tokenizer, context)
    if not prompts:
        return []
    with eager():
        found = model.generate(prompts, max_tokens=min(CONTINUED_TOKENS, context // 2), temperature=TEMPERATURE)
    return [
        ContinuedText(prompt=prompt, text=one.text, reason=one.reason)
        for prompt, one in zip(prompts, found, strict=True)
    ]


def blank_texts(corpus: Corpus, tokenizer: Tokenizer, context: int) -> list[str]:
    """Return sentences or lines of held-out (else training) documents with one whole word replaced by the mask. Prefers
    sentences of different documents, and words of one token. Without words between spaces, masks a middle token."""
    documents = _shown(corpus)
    longest = min(LONGEST_EXAMPLE, context - 2)
    found: list[tuple[int, str]] = []
    for index in range(min(len(documents), EXAMPLES_LOOKED_AT)):
        text = tokenizer.decode(_beginning(documents, index, EXAMPLE_TOKENS_LOOKED_AT))
        sentences = _SENTENCE_END.split(text)
        if documents.lengths[index] > EXAMPLE_TOKENS_LOOKED_AT and len(sentences) > 1:
            sentences.pop()  # truncated
        blanked = (_blanked(sentence, tokenizer, longest) for sentence in sentences)
        first = True
        for whole, shown in islice(filter(None, blanked), EXAMPLES):
            found.append((0 if whole and first else 1 if whole else 2, shown))
            first = first and not whole
        if sum(rank == 0 for rank, _ in found) >= EXAMPLES:
            break
    ranked = dict.fromkeys(text for _, text in sorted(found, key=lambda one: one[0]))
    return list(ranked)[:EXAMPLES] or _without_a_token(documents, tokenizer, longest)


def _blanked(sentence: str, tokenizer: Tokenizer, longest: int) -> tuple[bool, str] | None:
    """Return a sentence cut to `longest` tokens with a word near its middle masked (rarely a name, never the first),
    and whether that word is one token; None if it has too few words."""
    words = sentence.split()[:longest]
    while len(tokenizer.encode_prompt(" ".join(words))) > longest:
        words.pop()
    places = sorted(range(1, len(words)), key=lambda place: abs(place - len(words) // 2))
    plain = [place for place in places if _WORD.search(words[place])]
    if len(words) < FEWEST_WORDS or not plain:
        return None
    whole = (place for place in plain if len(tokenizer.encode(f" {_WORD.findall(words[place])[0]}")) == 1)
    place = next(whole, None)
    shown = plain[0] if place is None else place
    blank = _WORD.sub(lambda _: tokenizer.mask_token, words[shown], count=1)
    text = " ".join([*words[:shown], blank, *words[shown + 1 :]])
    # Next to a mask, the other words may be tokenized differently.
    if len(tokenizer.encode_prompt(text)) > longest or text.count(tokenizer.mask_token) != 1:
        return None
    return place is not None, text


def _without_a_token(documents: StoredDocuments, tokenizer: Tokenizer, longest: int) -> list[str]:
    """Return the beginnings of documents with the middle token masked."""
    found: dict[str, None] = {}
    for index in range(min(len(documents), EXAMPLES_LOOKED_AT)):
        ids = _beginning(documents, index, longest // 2)
        before, after = tokenizer.decode(ids[: len(ids) // 2]), tokenizer.decode(ids[len(ids) // 2 + 1 :])
        text = " ".join(f"{before}{tokenizer.mask_token}{after}".split())
        if len(ids) > 2 and text.count(tokenizer.mask_token) == 1 and len(tokenizer.encode_prompt(text)) <= longest:
            found[text] = None
        if len(found) == EXAMPLES:
            break
    return list(found)


def opening_texts(corpus: Corpus, tokenizer: Tokenizer, context: int) -> list[str]:
    """Return the first words of held-out (else training) documents, without duplicates."""
    documents = _shown(corpus)
    found: dict[str, None] = {}
    longest = max(1, min(LONGEST_EXAMPLE, context // 2) - 1)
    for index in range(min(len(documents), EXAMPLES_LOOKED_AT)):
        ids = _beginning(documents, index, longest)
        starts = [place for place, token in enumerate(ids) if place > 0 and tokenizer.starts_word[token]]
        end = starts[min(PROMPT_WORDS, len(starts)) - 1] if starts else len(ids)
        text = tokenizer.decode(ids[:end])
        # The prompt is encoded again, and must still leave room.
        if text.strip() and len(tokenizer.encode(text)) < context // 2:
            found[text] = None
        if len(found) == EXAMPLES:
            break
    return list(found)


def _shown(corpus: Corpus) -> StoredDocuments:
    return corpus.valid if len(corpus.valid) else corpus.train


def _beginning(documents: StoredDocuments, index: int, longest: int) -> list[int]:
    ids: list[int] = documents.tokens(index, 0, min(int(documents.lengths[index]), longest)).tolist()
    return ids
