"""Encode questions and passages as sequences, with the character offsets of passage tokens.

Legend: E questions, C distinct passages with T tokens in total, S windows, R rows read.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from palavra.data.squad import NOWHERE, Answer, Question
from palavra.errors import PalavraError
from palavra.tasks.encoded_examples import EncodedExamples, Int64Array, head_of, offsets_of, ranges, windows, wrap
from palavra.tasks.spec import Overflow
from palavra.tokenizer import Tokenizer

Int32Array = npt.NDArray[np.int32]

# As in the published programs for SQuAD.
LONGEST_QUESTION = 64
STRIDE = 128


@dataclass(frozen=True, kw_only=True)
class EncodedQuestions(EncodedExamples):
    """Windows of passages, each after its question; an example is a question.

    The rows of a window are [CLS] and its passage tokens. `labels` (S, 2) int64: the indices of the answer's first and
    last token among these rows, (0, 0) unless the window has the whole answer. `first` (S,): the index of a window's
    first passage token; `token_starts` and `token_ends` (T,) int32: character offsets of the tokens.
    """

    first: Int64Array
    token_starts: Int32Array
    token_ends: Int32Array

    def why_cut(self, context: int) -> str:
        """Return why questions were truncated; passages never are."""
        return f"have a question longer than the {kept_of_question(context)} tokens of it that are read"

    def window_spans(self, window: int) -> tuple[Int32Array, Int32Array]:
        """Return the start and end offsets of the passage tokens of a window."""
        first = int(self.first[window])
        tokens = slice(first, first + int(self.row_counts[window]) - 1)
        return self.token_starts[tokens], self.token_ends[tokens]


def kept_of_question(context: int) -> int:
    """Return the most tokens that are read of a question."""
    return min(LONGEST_QUESTION, (context - 3) // 2)


def largest_stride(context: int) -> int:
    """Return the largest stride that the windows of every question can have: half the room beside the longest one."""
    return (context - 3 - kept_of_question(context)) // 2


def taught_answer(question: Question) -> Answer | None:
    """Return the training target: the most frequent answer, the first of equally frequent ones, or None."""
    # Counter keeps insertion order, and most_common sorts stably.
    return Counter(question.answers).most_common(1)[0][0] if question.answers else None


def _labels(
    questions: Sequence[Question], passages: "Passages", question: Int64Array, first: Int64Array, lengths: Int64Array
) -> Int64Array:
    """Return the row indices (S, 2) of the answer in each window; row 0 is [CLS]."""
    spans = np.full((len(questions), 2), -1, dtype=np.int64)
    for number, one in enumerate(questions):
        if (answer := taught_answer(one)) is not None and answer.start != NOWHERE:
            start = answer.start + len(answer.text) - len(answer.text.lstrip())
            spans[number] = start, start + len(answer.text.strip())
    tokens = passages.tokens_of(passages.number, spans)[question]
    inside = (first <= tokens[:, 0]) & (tokens[:, 1] < first + lengths)
    labels: Int64Array = np.where(inside[:, None], tokens - first[:, None] + 1, 0)
    return labels


@dataclass(frozen=True, kw_only=True)
class Passages:
    """Concatenated tokens of distinct texts: `input_ids` (T,) uint32, `lengths` (C,) int64, character offsets `starts`
    and `ends` (T,) of each token in its text. `number` (E,): the distinct text of each given text; `bases` (C,): the
    offset of each distinct text if all are concatenated."""

    number: Int64Array
    input_ids: npt.NDArray[np.uint32]
    lengths: Int64Array
    starts: Int32Array
    ends: Int32Array
    bases: Int64Array

    def tokens_of(self, number: Int64Array, spans: Int64Array) -> Int64Array:
        """Return the first and last token (Q, 2), among all T, of the shortest range that covers the characters
        `spans` (Q, 2) of the texts `number` (Q,). Characters at the ends without a token are ignored. A span without
        any token, or with a negative start, gives -1, -2."""
        nowhere = np.array([-1, -2])
        found = np.tile(nowhere, (len(spans), 1))
        if len(self.starts) == 0:
            return found
        base = np.repeat(self.bases, self.lengths)
        # Offsets ascend in every known tokenizer; enforce it for others, because searchsorted needs it.
        starts, ends = (np.maximum.accumulate(base + offsets) for offsets in (self.starts, self.ends))
        begin, stop = (spans + self.bases[number][:, None]).T
        # A character may have several tokens (its bytes): take the first that begins and the last that ends there.
        before = np.searchsorted(starts, begin, "right") - 1
        first = np.searchsorted(starts, starts[np.maximum(before, 0)], "left")
        first = np.maximum(first, np.searchsorted(ends, begin, "right"))
        behind = np.minimum(np.searchsorted(ends, stop, "left"), len(ends) - 1)
        last = np.searchsorted(ends, ends[behind], "right") - 1
        last = np.minimum(last, np.searchsorted(starts, stop, "left") - 1)
        valid = (spans[:, 0] >= 0) & (first <= last)
        found[valid] = np.stack([first, last], 1)[valid]
        return found


def read_passages(texts: Sequence[str], tokenizer: Tokenizer) -> Passages:
    """Encode each distinct text once, because many questions share a passage."""
    place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    encoded = [tokenizer.encode_with_offsets(text) for text in place]
    lengths = np.array([len(ids) for ids, _ in encoded], dtype=np.int64)
    total = int(lengths.sum())
    ids = np.fromiter(chain.from_iterable(ids for ids, _ in encoded), dtype=np.uint32, count=total)
    pairs = chain.from_iterable(chain.from_iterable(offsets for _, offsets in encoded))
    offsets = np.fromiter(pairs, dtype=np.int32, count=2 * total).reshape(total, 2)
    return Passages(
        number=np.array([place[text] for text in texts], dtype=np.int64),
        input_ids=ids,
        lengths=lengths,
        starts=np.ascontiguousarray(offsets[:, 0]),
        ends=np.ascontiguousarray(offsets[:, 1]),
        bases=offsets_of(np.array([len(text) for text in place], dtype=np.int64))[:-1],
    )


@dataclass(frozen=True, kw_only=True)
class QuestionEncoder:
    """Encode questions; neighbouring windows of a long passage share `stride` tokens."""

    stride: int

    def check(self, examples: Sequence[Question]) -> None:
        """Raise PalavraError for an answer that has a place and is not there in the passage."""
        for example in examples:
            for answer in example.answers:
                if answer.start == NOWHERE and answer.text.strip():
                    continue
                here = answer.start >= 0 and example.context.startswith(answer.text, answer.start)
                if not here or not answer.text.strip():
                    raise PalavraError(
                        f"{example.where}: the answer {answer.text[:40]!r} is not at character {answer.start} of the "
                        "context: correct its start"
                    )

    def summary(self, examples: Sequence[Question]) -> dict[str, Any]:
        """Count questions, passages, and questions without an answer."""
        return {
            "examples": len(examples),
            "contexts": len({example.context for example in examples}),
            "unanswerable": sum(not example.answers for example in examples),
        }

    def encode(
        self, examples: Sequence[Question], tokenizer: Tokenizer, context: int, segments: bool, *,
        overflow: Overflow = "truncate",
    ) -> EncodedQuestions:  # fmt: skip
        """Return [CLS] question [SEP] passage [SEP] in as many windows as a passage needs; they share `stride` tokens,
        or half the room if less. Questions are truncated to `LONGEST_QUESTION` tokens and half the room."""
        del overflow
        passages = read_passages([question.context for question in examples], tokenizer)
        asked, asked_lengths = tokenizer.encode_flat([question.question for question in examples])
        kept = np.minimum(asked_lengths, kept_of_question(context))
        template = tokenizer.template(2)
        room = context - template.size - kept
        question, first, lengths = windows(passages.lengths[passages.number], room, np.minimum(self.stride, room // 2))
        first += offsets_of(passages.lengths)[passages.number][question]
        # Repeat each question's ids for every window.
        ids = head_of(asked, asked_lengths, kept)
        repeated = ids[ranges(offsets_of(kept)[:-1][question], kept[question])]
        parts = [(repeated, kept[question]), (passages.input_ids[ranges(first, lengths)], lengths)]
        wrapped = wrap(parts, template)
        # The row before the passage belongs to no text; replace it by the first, which stands for no answer.
        rows = ranges(wrapped.starts - 1, lengths + 1)
        rows[offsets_of(lengths + 1)[:-1]] = 0
        labels = _labels(examples, passages, question, first, lengths)
        found = np.bincount(question, labels[:, 1] > 0, minlength=len(examples)) > 0
        return EncodedQuestions(
            input_ids=wrapped.input_ids,
            lengths=wrapped.lengths,
            segment_ids=wrapped.segment_ids if segments else None,
            example=question,
            rows=rows,
            row_counts=lengths + 1,
            labels=labels,
            label_counts=np.ones(len(question), dtype=np.int64),
            cut=kept < asked_lengths,
            unseen=np.array([any(answer.start != NOWHERE for answer in one.answers) for one in examples], dtype=bool)
            & ~found,
            first=first,
            token_starts=passages.starts,
            token_ends=passages.ends,
        )
