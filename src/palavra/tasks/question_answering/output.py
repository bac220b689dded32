"""Output of question answering: a layer that scores first and last tokens, its loss, and decoded answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.data.squad import Question
from palavra.losses import Loss
from palavra.metrics.classification import check_finite
from palavra.metrics.resampled import BoolArray, Doubles
from palavra.model.families.tasks import Form
from palavra.model.task_heads import Level
from palavra.tasks.encoded_examples import EncodedExamples, offsets_of
from palavra.tasks.grouped_softmax import group_log_softmax
from palavra.tasks.question_answering.answer_spans import Found, find_answers
from palavra.tasks.question_answering.encoding import EncodedQuestions
from palavra.tasks.spec import QuestionAnsweringOptions
from palavra.tasks.task import PLAIN, DecodeOptions, ModelOutputs, Output, Prediction

# Spans to consider per window, and answers whose probabilities sum to 1: `n_best_size` of the published programs.
CANDIDATES = 20


@dataclass(frozen=True, kw_only=True)
class DecodedAnswers:
    """The candidates `found` for each question, the no-answer margins above which to abstain, `limits` (E,), the number
    of answers to list, `listed`, and the `scores` (R, 2) of the rows."""

    found: tuple[Found, ...]
    limits: Doubles
    listed: int
    scores: Doubles

    @property
    def margins(self) -> Doubles:
        """Return the no-answer margins (E,), in logits."""
        return np.array([one.no_answer_margin for one in self.found])

    @property
    def abstained(self) -> BoolArray:
        """Return which questions get no answer (E,)."""
        found: BoolArray = self.margins > self.limits
        return found

    def probabilities(self, number: int) -> list[float]:
        """Return the probabilities of a question's candidates, best first, and of "no answer" last if possible."""
        found = self.found[number]
        scores = [candidate.score for candidate in found.candidates]
        may_abstain = bool(np.isfinite(self.limits[number])) or not scores
        made: list[float] = softmax([*scores, found.no_answer] if may_abstain else scores).tolist()
        return made


@dataclass(frozen=True, kw_only=True)
class AnswerOutput(Output[Question, DecodedAnswers]):
    """Score each passage token, and [CLS] for "not in this window", as the first and as the last token of the answer.

    The softmax is over [CLS] and the passage tokens only; in `transformers` it is over all tokens of the window. Logits
    are the same, losses slightly lower. `unanswerable`: training had questions without an answer; `threshold`: fitted
    on validation data.
    """

    options: QuestionAnsweringOptions
    unanswerable: bool
    threshold: float | None = None
    form: ClassVar[Form] = "QuestionAnswering"
    level: ClassVar[Level] = "token"

    @property
    def limit(self) -> float:
        """Return the no-answer margin above which to abstain, in logits: as specified, else as fitted, else 0 if
        training had questions without an answer (the published rule), else infinite."""
        for value in (self.options.threshold, self.threshold):
            if value is not None:
                return value
        return 0.0 if self.unanswerable else np.inf

    def build(self, width: int) -> nn.Module:
        return nn.Linear(width, 2)

    def loss(self, layer: nn.Module, x: Tensor, batch: Batch) -> Loss:
        """Return the mean cross-entropy of first and last token, summed over the windows."""
        bounds = batch.cu_seqlens.to(x.device, torch.int64, non_blocking=True)
        window = torch.searchsorted(bounds[1:], batch.label_rows, right=True)
        # [CLS] is the first token of its sequence and its first row.
        first = torch.searchsorted(batch.label_rows, bounds[:-1])
        return Loss(window_losses(layer(x), window, first, batch.labels).sum(), batch.labelled)

    def decode(
        self, examples: Sequence[Question], encoded: EncodedExamples, outputs: ModelOutputs,
        options: DecodeOptions = PLAIN,
    ) -> DecodedAnswers:  # fmt: skip
        """Return the best answers of each question, and the limits for abstentions."""
        assert isinstance(encoded, EncodedQuestions)
        check_finite(outputs[0], "tokens")
        listed = options.top_k or self.options.n_best
        limit = self.limit if options.threshold is None else options.threshold
        scores = outputs[0].astype(np.float64)
        found = find_answers(examples, encoded, scores, self.options.max_answer_length, max(CANDIDATES, listed))
        limits = np.broadcast_to(np.asarray(limit, dtype=np.float64), len(examples))
        return DecodedAnswers(found=tuple(found), limits=limits, listed=listed, scores=scores)

    def predictions(self, examples: Sequence[Question], decoded: DecodedAnswers) -> list[Prediction]:
        """Return `answer`, `start` and `end` (context characters, None for no answer), `probability`,
        `no_answer_probability` if the task may abstain, and the `best` answers."""
        del examples
        return [self._prediction(decoded, number) for number in range(len(decoded.found))]

    def _prediction(self, decoded: DecodedAnswers, number: int) -> Prediction:
        found, limit, probabilities = decoded.found[number], decoded.limits[number], decoded.probabilities(number)
        best = [
            {"answer": one.text, "probability": probability, "start": one.start, "end": one.end}
            for one, probability in zip(found.candidates, probabilities, strict=False)
        ]
        nothing = {"answer": "", "probability": probabilities[-1], "start": None, "end": None}
        chosen = nothing if not best or found.no_answer_margin > limit else best[0]
        no_answer = {"no_answer_probability": probabilities[-1]} if np.isfinite(limit) else {}
        return {**chosen, **no_answer, "best": best[: decoded.listed]}


def window_losses(scores: Tensor, window: Tensor, first: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of the two cross-entropies of each window (S,), in nats. scores (R, 2) of the rows, `window` (R,)
    of each row, `first` row (S,) of each window, labels (S, 2)."""
    ends = [
        group_log_softmax(scores[:, end], window, len(first)).index_select(0, first + labels[:, end]) for end in (0, 1)
    ]
    return -(ends[0] + ends[1]) / 2


def losses_of_windows(encoded: EncodedExamples, scores: Doubles) -> Doubles:
    """Return `AnswerOutput.loss` of each window (S,), in float64, from the scores (R, 2) of its rows."""
    window = np.repeat(np.arange(encoded.sequences), encoded.row_counts)
    arrays = (scores, window, offsets_of(encoded.row_counts)[:-1], encoded.labels)
    losses: Doubles = window_losses(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)).numpy()
    return losses
