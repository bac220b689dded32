"""Candidate answers to a question: the best spans of its windows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from palavra.data.grapheme_clusters import whole_clusters
from palavra.data.squad import Question
from palavra.metrics.resampled import Doubles
from palavra.tasks.encoded_examples import Int64Array, offsets_of
from palavra.tasks.question_answering.encoding import EncodedQuestions


@dataclass(frozen=True, kw_only=True)
class AnswerCandidate:
    """A candidate answer: `text` is `context[start:end]`, `score` the sum of two logits."""

    text: str
    start: int
    end: int
    score: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """The best `candidates` for one question, in order, with distinct texts, and the score of "no answer"."""

    candidates: tuple[AnswerCandidate, ...]
    no_answer: float

    @property
    def text(self) -> str:
        """Return the best answer, or "" without candidates."""
        return self.candidates[0].text if self.candidates else ""

    @property
    def no_answer_margin(self) -> float:
        """Return the score of "no answer" minus that of the best answer, in logits."""
        return self.no_answer - self.candidates[0].score if self.candidates else 0.0


def best_spans(start: Doubles, end: Doubles, longest: int, count: int) -> tuple[Int64Array, Int64Array, Doubles]:
    """Return first position, last position and score of the `count` best spans of at most `longest` positions, best
    first, ties in order. start, end (n,): scores of the positions; a span's score is the sum of its two."""
    n = len(start)
    longest = min(longest, n)
    if n == 0:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0)
    padded = np.concatenate([end, np.full(longest - 1, -np.inf)])
    # (n, longest): entry (i, d) is the span of length d + 1 from i.
    sums = (start[:, None] + np.lib.stride_tricks.sliding_window_view(padded, longest)).ravel()
    kept = np.argpartition(-sums, count - 1)[:count] if count < len(sums) else np.arange(len(sums))
    kept = kept[np.lexsort((kept, -sums[kept]))]
    kept = kept[np.isfinite(sums[kept])]
    first, further = np.divmod(kept, longest)
    return first, first + further, sums[kept]


def candidate_of(context: str, start: int, end: int, score: float) -> AnswerCandidate:
    """Return the span without outer whitespace, which a token may include, and with all of its first and last
    character: a token may be part of one, and marks have no token if the tokenizer strips accents."""
    start, end = whole_clusters(context, start, end)
    text = context[start:end]
    start += len(text) - len(text.lstrip())
    text = text.strip()
    return AnswerCandidate(text=text, start=start, end=start + len(text), score=score)


def distinct(candidates: list[AnswerCandidate]) -> tuple[AnswerCandidate, ...]:
    """Return the best candidate of each text, best first; overlapping windows and repeated passages duplicate texts."""
    seen: dict[str, AnswerCandidate] = {}
    for one in sorted(candidates, key=lambda one: (-one.score, one.start)):
        if one.text:
            seen.setdefault(one.text, one)
    return tuple(seen.values())


def find_answers(
    examples: Sequence[Question], encoded: EncodedQuestions, scores: Doubles, longest: int, count: int
) -> Iterator[Found]:
    """Yield the best `count` answers of at most `longest` tokens for each question, from the scores (R, 2) of its rows.
    The score of "no answer" is the minimum over windows (Devlin et al. 2019, section 4.3), because it is rightly high
    in a window without the answer."""
    rows = offsets_of(encoded.row_counts)
    windows = np.searchsorted(encoded.example, np.arange(len(examples) + 1))
    for number, example in enumerate(examples):
        candidates: list[AnswerCandidate] = []
        no_answer = np.inf
        for window in range(windows[number], windows[number + 1]):
            window_scores = scores[rows[window] : rows[window + 1]]
            no_answer = min(no_answer, float(window_scores[0].sum()))
            first, last, values = best_spans(window_scores[1:, 0], window_scores[1:, 1], longest, count)
            starts, ends = encoded.window_spans(window)
            spans = zip(starts[first].tolist(), ends[last].tolist(), values.tolist(), strict=True)
            candidates += [candidate_of(example.context, *span) for span in spans]
        yield Found(candidates=distinct(candidates)[:count], no_answer=no_answer)
