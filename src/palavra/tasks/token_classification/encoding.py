"""Encode sentences of words as token sequences, in windows that read every word once, with numeric labels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from palavra.errors import PalavraError
from palavra.metrics.tag_schemes import Scheme, decode_tags
from palavra.tasks.encoded_examples import OVERLAP, EncodedExamples, Int64Array, head_of, offsets_of, ranges, wrap
from palavra.tasks.labels import Labels, known_labels, numbered
from palavra.tasks.spec import Overflow
from palavra.tasks.token_classification.examples import TaggedSentence
from palavra.tasks.token_classification.tags import ANY, labels_of, normalized, tags_of, types_of
from palavra.tokenizer import Tokenizer

TokenIds = npt.NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True)
class Windows:
    """S windows of words, which are numbered over all sentences.

    All arrays are (S,) int64. A window of a `sentence` has the words from `start` up to `stop`; the head reads those
    from `first` up to `last`. Together the windows read every word once, in order.
    """

    sentence: Int64Array
    start: Int64Array
    stop: Int64Array
    first: Int64Array
    last: Int64Array


def word_texts(text: str, words: Sequence[str], spans: Sequence[tuple[int, int]]) -> list[str]:
    """Return the words, with a leading space if whitespace precedes them in the text: byte-level and SentencePiece
    vocabularies have different tokens for "the" and " the". Other tokenizers remove the space; one with
    `add_prefix_space` adds it to every word, as in `transformers`."""
    return [
        f" {word}" if start and text[start - 1].isspace() else word
        for word, (start, _) in zip(words, spans, strict=True)
    ]


def encode_words(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[TokenIds, Int64Array]:
    """Tokenize each word alone. Return the concatenated tokens (N,) and the number of each word (W,), at least one.

    A word without tokens, such as control characters, becomes [UNK].
    """
    numbers: dict[str, int] = {}
    which = np.fromiter((numbers.setdefault(text, len(numbers)) for text in texts), np.int64, count=len(texts))
    ids, counts = tokenizer.encode_flat(list(numbers))
    nothing = counts == 0
    if nothing.any():
        ids = np.insert(ids, offsets_of(counts)[:-1][nothing], tokenizer.unk_id).astype(np.uint32)
        counts = np.maximum(counts, 1)
    return ids[ranges(offsets_of(counts)[:-1][which], counts[which])], counts[which]


def word_windows(counts: Int64Array, words: Int64Array, room: int) -> Windows:
    """Return windows of at most `room` tokens over sentences of `words` (E,) words, which have `counts` (W,) tokens, at
    most `room` each. A sentence that fits, even an empty one, is one window."""
    tokens, bounds = offsets_of(counts), offsets_of(words)
    starts, stops = bounds[:-1], bounds[1:]
    long = tokens[stops] - tokens[starts] > room
    short = np.flatnonzero(~long)
    sentence, parts = [short], [np.stack([starts, stops, starts, stops], 1)[short]]
    for number in np.flatnonzero(long).tolist():
        found = _spread(tokens[starts[number] : stops[number] + 1], room)
        sentence.append(np.full(len(found), number))
        parts.append(found + starts[number])
    whole = np.concatenate(sentence)
    order = np.argsort(whole, kind="stable")
    start, stop, first, last = np.concatenate(parts)[order].T
    return Windows(sentence=whole[order], start=start, stop=stop, first=first, last=last)


def _spread(tokens: Int64Array, room: int) -> Int64Array:
    """Return start, stop, first and last of the windows (n, 4) of one long sentence. `tokens` (W + 1,): the offset of
    each word, and the end of the last. Each word is read in the window whose nearer end is farthest away (the maximum
    context of Devlin et al.'s SQuAD code)."""
    words = len(tokens) - 1
    bounds: list[tuple[int, int]] = []
    start = stop = 0
    while stop < words:
        stop = int(np.searchsorted(tokens, tokens[start] + room, side="right")) - 1
        if stop == words:
            start = int(np.searchsorted(tokens, tokens[words] - room))  # all that fits before the end
            bounds.append((start, stop))
        else:
            bounds.append((start, stop))
            # Advance at least so far that the next window adds a word.
            start = int(np.searchsorted(tokens, max(tokens[stop] - room // OVERLAP, tokens[stop + 1] - room)))
    context, owner = np.full(words, -1, dtype=np.int64), np.zeros(words, dtype=np.int64)
    for number, (start, stop) in enumerate(bounds):
        before, after = tokens[start:stop] - tokens[start], tokens[stop] - tokens[start + 1 : stop + 1]
        here = np.minimum(before, after)
        better = start + np.flatnonzero(here > context[start:stop])
        context[better], owner[better] = here[better - start], number
    # A later window never has more context for an earlier word, so the owners ascend.
    numbers = np.arange(len(bounds))
    first, last = np.searchsorted(owner, numbers, side="left"), np.searchsorted(owner, numbers, side="right")
    return np.column_stack([np.array(bounds), first, last]).astype(np.int64)


def encode_sentences(
    texts: Sequence[Sequence[str]], tokenizer: Tokenizer, context: int, subwords: Literal["first", "all"]
) -> tuple[EncodedExamples, Int64Array]:
    """Return [CLS] words [SEP] of sentences from `word_texts`, unlabelled, and the word number (over all sentences) of
    each row (R,). Rows are the first token of each word, or all tokens. Sentences longer than `context` become several
    sequences; only a word longer than `context` is truncated (see `EncodedExamples.cut`)."""
    template = tokenizer.template(1)
    room = context - template.size
    words = np.fromiter(map(len, texts), np.int64, count=len(texts))
    ids, counts = encode_words([word for sentence in texts for word in sentence], tokenizer)
    cut = counts > room
    sentence = np.repeat(np.arange(len(words)), words)
    damaged = np.bincount(sentence[cut], minlength=len(words)) > 0
    if damaged.any():
        kept = np.minimum(counts, room)
        ids, counts = head_of(ids, counts, kept), kept
    tokens, shown = offsets_of(counts), word_windows(counts, words, room)
    lengths = tokens[shown.stop] - tokens[shown.start]
    wrapped = wrap([(ids[ranges(tokens[shown.start], lengths)], lengths)], template)
    # Position of a token in its sequence: its number over all sentences, plus the shift of its window.
    shift = wrapped.starts - tokens[shown.start]
    read = shown.last - shown.first
    rows, row_counts = tokens[:-1], read
    row_words = np.arange(len(counts))
    if subwords == "all":
        rows, row_counts = np.arange(len(ids)), tokens[shown.last] - tokens[shown.first]
        row_words = np.repeat(row_words, counts)
    encoded = EncodedExamples(
        input_ids=wrapped.input_ids,
        lengths=wrapped.lengths,
        segment_ids=None,
        example=shown.sentence,
        rows=rows + np.repeat(shift, row_counts),
        row_counts=row_counts,
        labels=np.empty(0, dtype=np.int64),
        label_counts=np.zeros(len(wrapped.lengths), dtype=np.int64),
        cut=damaged,
        row_starts=np.diff(row_words, prepend=-1) > 0 if subwords == "all" else None,
    )
    return encoded, row_words


@dataclass(frozen=True, kw_only=True)
class TagEncoder:
    """Encode words with `labels` (classes in order) that tag spans by `scheme`; `subwords`: which tokens of a word have
    its label. Tags of the data are converted to the model's scheme. A tag that is invalid at its position is read as in
    conlleval, which keeps every span."""

    labels: Labels
    scheme: Scheme
    subwords: Literal["first", "all"]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Return the number of each label."""
        return numbered(self.labels)

    def check(self, examples: Sequence[TaggedSentence]) -> None:
        """Raise PalavraError for a word with a label that training did not have."""
        # Data may write the types in any scheme.
        readable = set(self.numbers if self.scheme == "plain" else tags_of(types_of(self.numbers), ANY))
        for example in examples:
            own = labels_of(example)
            unseen = next((n for n, label in enumerate(own) if label not in readable), None)
            if unseen is None:
                # Labels of a foreign model may lack some tags of a type.
                tags = normalized(example, self.scheme)
                unseen = next((n for n, tag in enumerate(tags) if tag not in self.numbers), None)
            if unseen is not None:
                raise PalavraError(
                    f"{example.where}: word {unseen + 1}, {example.words[unseen]!r}, has the label {own[unseen]!r}, "
                    f"which was not in training, which has {known_labels(self.labels)}: correct the label, or train "
                    "with examples of it"
                )

    def summary(self, examples: Sequence[TaggedSentence]) -> dict[str, Any]:
        """Count examples, words and labels, and for spans also the sentences whose tags were converted."""
        labels = Counter(chain.from_iterable(map(labels_of, examples)))
        found = {"examples": len(examples), "words": labels.total(), "labels": dict(labels.most_common())}
        if self.scheme == "plain":
            return found
        spans = Counter(span.label for example in examples for span in decode_tags(labels_of(example), ANY))
        rewritten = sum(normalized(example, self.scheme) != example.labels for example in examples)
        return {**found, "scheme": self.scheme, "spans": dict(spans.most_common()), "tags_rewritten": rewritten}

    def encode(
        self, examples: Sequence[TaggedSentence], tokenizer: Tokenizer, context: int, segments: bool, *,
        overflow: Overflow = "truncate",
    ) -> EncodedExamples:  # fmt: skip
        """See `encode_sentences`. Always split long sentences into windows, because every word needs a label."""
        del segments, overflow
        texts = [word_texts(example.text, example.words, example.spans) for example in examples]
        encoded, row_words = encode_sentences(texts, tokenizer, context, self.subwords)
        if not examples or examples[0].labels is None:
            return encoded
        names = chain.from_iterable(normalized(example, self.scheme) for example in examples)
        words = np.fromiter((self.numbers[name] for name in names), dtype=np.int64)
        return replace(encoded, labels=words[row_words], label_counts=encoded.row_counts)
