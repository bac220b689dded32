"""Extractive question answering: the answer is a span of the passage (Devlin et al. 2019, sections 4.2 and 4.3)."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.data.hub import PREFIX
from palavra.data.squad import Question, is_squad, read_questions
from palavra.data.tables import kind_of
from palavra.errors import PalavraError
from palavra.losses import Loss
from palavra.metrics.articles import ARTICLES, Articles
from palavra.metrics.calibration import FEWEST_IN_HALF, Calibration, halves, how_fitted
from palavra.metrics.classification import check_finite
from palavra.metrics.squad import grade
from palavra.model.families.tasks import Form
from palavra.model.task_heads import Level
from palavra.tasks.features import EncodedExamples, offsets_of
from palavra.tasks.question_answering.answer_spans import AnswerCandidate, Found, best_spans, candidate_of, distinct
from palavra.tasks.question_answering.encoding import EncodedQuestions, encode_questions
from palavra.tasks.question_answering.scores import (
    Doubles,
    Judged,
    confident_errors,
    losses_of_windows,
    passages_of,
    scores_of_sorts,
    statistics_of_questions,
    window_losses,
)
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import Located, ModelOutputs, Prediction, Scores, Task
from palavra.tokenizer import Tokenizer

# Spans of each window that are looked at, and answers whose probabilities add up to 1: the `n_best_size` of the
# published programs.
ANSWERED_METRICS = ("f1", "exact", "calibration_error", "loss")  # of questions that all have an answer
CANDIDATES = 20
COLUMNS = ("question", "context", "answers")


class QuestionAnswering(Task[Question]):
    """Each passage token, and [CLS] for "not in this window", gets a score as the first and as the last one.

    The softmax is over [CLS] and the passage's tokens only, so that neither the question nor [SEP] is ever part of an
    answer; that of `transformers` is over all tokens of the window. Logits are the same, losses a little lower here.
    `unanswerable`: training had questions without answer; `threshold`: fitted on validation data, by `calibrated`.
    """

    kinds = ("question-answering",)
    level: ClassVar[Level] = "token"

    def __init__(self, spec: TaskSpec, unanswerable: bool, threshold: float | None = None):
        super().__init__(spec)
        self.unanswerable, self.threshold = unanswerable, threshold

    @property
    def form(self) -> Form:
        return "QuestionAnswering"

    @property
    def metrics(self) -> tuple[str, ...]:
        if self.unanswerable:
            return ("f1", "exact", "has_answer_f1", "has_answer_exact", "no_answer_f1", "no_answer_exact", "best_f1",
                    "best_exact", "calibration_error", "loss")  # fmt: skip
        return ANSWERED_METRICS

    @property
    def limit(self) -> float:
        """How much better than the best answer "no answer" must be to be given, in logits: as the specification says,
        else as fitted, else 0 where training had questions without answer; never where it had none."""
        for value in (self.spec.question_answering.threshold, self.threshold):
            if value is not None:
                return value
        return 0.0 if self.unanswerable else np.inf

    @property
    def input_parts(self) -> int:
        return 2

    # Data

    @classmethod
    def read(cls, spec: TaskSpec, source: str) -> list[Question]:
        return list(read_questions(source, encoding=spec.encoding, columns=_columns(spec)))

    @classmethod
    def check_columns(cls, spec: TaskSpec, given: Collection[str], sources: Sequence[str]) -> None:
        named = [name for name in COLUMNS if name in given]
        if named and all(is_squad(source, encoding=spec.encoding) for source in sources):
            raise PalavraError(
                f"{sources[0]}: --{named[0]} would not be read: SQuAD's JSON has names of its own; leave it out"
            )

    @classmethod
    def fit(cls, spec: TaskSpec, examples: Sequence[Question]) -> "QuestionAnswering":
        answered = sum(bool(example.answers) for example in examples)
        if not answered:
            raise PalavraError(
                f"{spec.train or 'the training data'}: no question has an answer, so there is nothing to learn: check "
                "the answers"
            )
        task = cls(spec, answered < len(examples))
        task.check(examples)
        return task

    def check(self, examples: Sequence[Question]) -> None:
        """Raise PalavraError for an answer that is not in its passage where it says."""
        for example in examples:
            for answer in example.answers:
                here = answer.start >= 0 and example.context.startswith(answer.text, answer.start)
                if not here or not answer.text.strip():
                    raise PalavraError(
                        f"{example.where}: the answer {answer.text[:40]!r} is not at character {answer.start} of the "
                        "context: mend its start"
                    )

    def read_inputs(self, source: str, given: Collection[str] = ()) -> Iterator[Located]:
        """The questions of a file, with or without answers; in a .json with them."""
        if source.startswith(PREFIX) or kind_of(Path(source), (".json",)) is None:
            yield from super().read_inputs(source)
            return
        self.check_columns(self.spec, given, [source])
        names = self._names()
        for one in read_questions(source, encoding=self.spec.encoding, columns=_columns(self.spec)):
            yield Located(dict(zip(names, (one.question, one.context), strict=True)), one.where)

    def _names(self) -> tuple[str, str]:
        return self.spec.columns.question or "question", self.spec.columns.context or "context"

    def undefined(self, examples: Sequence[Question]) -> tuple[str, ...]:
        """The scores of questions with, or without, an answer, where there are none such."""
        answered = [bool(example.answers) for example in examples]
        if all(answered):
            return tuple(name for name in self.metrics if name not in ANSWERED_METRICS)
        return () if any(answered) else ("has_answer_f1", "has_answer_exact")

    def gold(self, example: Question) -> Any:
        return [answer.text for answer in example.answers]

    def input_of(self, one: Any, where: str) -> Question:
        names = self._names()
        if isinstance(one, Mapping):
            texts = [one.get(name) for name in names]
        else:
            texts = list(one) if isinstance(one, list | tuple) else []
        if len(texts) != 2 or not all(isinstance(text, str) and text.strip() for text in texts):
            raise PalavraError(
                f"{where}: wanted are a mapping with {names[0]} and {names[1]}, or a pair of these texts"
            )
        return Question(id=where, question=str(texts[0]), context=str(texts[1]), answers=(), where=where)

    def summary(self, examples: Sequence[Question]) -> dict[str, Any]:
        return {
            "examples": len(examples),
            "contexts": len({example.context for example in examples}),
            "unanswerable": sum(not example.answers for example in examples),
        }

    def group(self, example: Question) -> str | None:
        return example.context

    def stratification_keys(self, example: Question) -> tuple[str]:
        return ("answer" if example.answers else "no answer",)

    # The model

    def encode(
        self, examples: Sequence[Question], tokenizer: Tokenizer, context: int, segments: bool, *, split: bool = False
    ) -> EncodedQuestions:
        """Passages always become as many windows as they need, whatever `split` says."""
        del split
        return encode_questions(examples, tokenizer, context, segments, self.spec.question_answering.stride)

    def build_output(self, width: int) -> nn.Module:
        return nn.Linear(width, 2)

    def loss(self, output: nn.Module, x: Tensor, batch: Batch) -> Loss:
        """The mean of the cross-entropies of the first and of the last token, summed over the windows."""
        bounds = batch.cu_seqlens.to(x.device, torch.int64, non_blocking=True)
        window = torch.searchsorted(bounds[1:], batch.label_rows, right=True)
        # [CLS] is the first token of its sequence and the first row that is read of it.
        first = torch.searchsorted(batch.label_rows, bounds[:-1])
        return Loss(window_losses(output(x), window, first, batch.labels).sum(), batch.labelled)

    def infer(self, output: nn.Module, x: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Scores (R, 2) of each row as the first and the last token of the answer."""
        return (output(x).float(),)

    # Predictions

    def with_top_k(self, count: int) -> "QuestionAnswering":
        spec = replace(self.spec, question_answering=replace(self.spec.question_answering, n_best=count))
        return QuestionAnswering(spec, self.unanswerable, self.threshold)

    def find(self, examples: Sequence[Question], features: EncodedExamples, inferred: ModelOutputs) -> Iterator[Found]:
        """What each question's windows hold. The score of "no answer" is that of the window which doubts it most
        (Devlin et al. 2019, section 4.3): a window without the answer says "not here" with good reason."""
        assert isinstance(features, EncodedQuestions)
        rows = offsets_of(features.row_counts)
        windows = np.searchsorted(features.example, np.arange(len(examples) + 1))
        scores = inferred[0].astype(np.float64)
        count = max(CANDIDATES, self.spec.question_answering.n_best)
        for number, example in enumerate(examples):
            candidates: list[AnswerCandidate] = []
            no_answer = np.inf
            for window in range(windows[number], windows[number + 1]):
                own = scores[rows[window] : rows[window + 1]]
                no_answer = min(no_answer, float(own[0].sum()))
                first, last, values = best_spans(
                    own[1:, 0], own[1:, 1], self.spec.question_answering.max_answer_length, count
                )
                starts, ends = features.window_spans(window)
                spans = zip(starts[first].tolist(), ends[last].tolist(), values.tolist(), strict=True)
                candidates += [candidate_of(example.context, *span) for span in spans]
            yield Found(candidates=distinct(candidates)[:count], no_answer=no_answer)

    def predict(
        self, examples: Sequence[Question], features: EncodedExamples, inferred: ModelOutputs
    ) -> list[Prediction]:
        return [self._prediction(found) for found in self.find(examples, features, inferred)]

    def _prediction(self, found: Found) -> Prediction:
        """`start` and `end` are characters of the context, None for no answer. Probabilities are shares among the
        answers found, at most `CANDIDATES`, and where "no answer" can be one, that."""
        shares = self._shares(found)
        best = [
            {"answer": one.text, "probability": share, "start": one.start, "end": one.end}
            for one, share in zip(found.candidates, shares, strict=False)
        ]
        refused = not best or found.no_answer_margin > self.limit
        chosen = {"answer": "", "probability": shares[-1], "start": None, "end": None} if refused else best[0]
        no_answer_margin = {"no_answer_probability": shares[-1]} if np.isfinite(self.limit) else {}
        return {**chosen, **no_answer_margin, "best": best[: self.spec.question_answering.n_best]}

    def _shares(self, found: Found) -> list[float]:
        """Of the candidates, best first, and of "no answer" where that can be one."""
        scores = [candidate.score for candidate in found.candidates]
        may_refuse = bool(np.isfinite(self.limit)) or not scores
        shares: list[float] = softmax([*scores, found.no_answer] if may_refuse else scores).tolist()
        return shares

    def score(self, examples: Sequence[Question], features: EncodedExamples, inferred: ModelOutputs) -> Scores:
        """Exact match and F1 with the task's threshold; where some questions have no answer, also of each sort alone,
        and the best threshold, which was chosen with the right answers at hand."""
        judged = self._judged(examples, features, inferred)
        return self._scores(examples, features, inferred, judged)

    def evaluate(
        self, examples: Sequence[Question], features: EncodedExamples, inferred: ModelOutputs
    ) -> tuple[Scores, list[Prediction]]:
        judged = self._judged(examples, features, inferred)
        predictions = [self._prediction(found) for found in judged.found]
        return self._scores(examples, features, inferred, judged), predictions

    def calibrate(
        self, examples: Sequence[Question], features: EncodedExamples, inferred: ModelOutputs
    ) -> tuple["QuestionAnswering", Scores]:
        """The task with the threshold that gives labelled validation examples the best F1, and its scores; as it is
        where not both sorts of questions are among them."""
        judged = self._judged(examples, features, inferred)
        if len({bool(example.answers) for example in examples}) < 2:
            return self, self._scores(examples, features, inferred, judged)
        task = QuestionAnswering(self.spec, self.unanswerable, judged.threshold().value)
        if self.spec.question_answering.threshold is not None:
            return task, task._scores(examples, features, inferred, judged)
        return task, task._scores_cross_fitted(examples, features, inferred, judged)

    def _scores_cross_fitted(
        self, examples: Sequence[Question], features: EncodedExamples, inferred: ModelOutputs, judged: "Judged"
    ) -> Scores:
        assert self.threshold is not None
        passages = passages_of(examples)
        second = halves([""] * (int(passages.max()) + 1))[passages]
        limits, own = np.full(len(examples), self.threshold), None
        answered = judged.grades.answered
        sorts = [(half & sort).sum() for half in (second, ~second) for sort in (answered, ~answered)]
        if min(sorts) >= FEWEST_IN_HALF:
            own = judged.threshold(~second).value, judged.threshold(second).value
            limits = np.where(second, *own)
        scores = self._scores(examples, features, inferred, judged, limits)
        return replace(scores, details={**scores.details, "fitted": how_fitted("threshold", self.threshold, own)})

    def _judged(self, examples: Sequence[Question], features: EncodedExamples, inferred: ModelOutputs) -> "Judged":
        check_finite(inferred[0], "tokens")
        found = tuple(self.find(examples, features, inferred))
        gold = [tuple(answer.text for answer in one.answers) for one in examples]
        return Judged(
            found=found,
            grades=grade([one.text for one in found], gold, ARTICLES[self.spec.question_answering.articles]),
            no_answer_margin=np.array([one.no_answer_margin for one in found]),
        )

    def _scores(
        self, examples: Sequence[Question], features: EncodedExamples, inferred: ModelOutputs, judged: "Judged",
        limits: Doubles | None = None,
    ) -> Scores:  # fmt: skip
        """The scores with the task's threshold, or one for each question, `limits` (E,)."""
        refused = judged.no_answer_margin > (self.limit if limits is None else limits)
        given = judged.grades.with_abstentions(refused)
        best = {}
        if not given.answered.all():
            best = {"best_f1": judged.threshold(), "best_exact": judged.threshold(of="exact")}
        scores = given.scores(**best)
        of_windows = losses_of_windows(features, inferred)
        threshold = {} if np.isinf(self.limit) else {"threshold": self.limit}
        shares = [self._shares(found) for found in judged.found]
        sure = np.array([own[-1] if no else own[0] for own, no in zip(shares, refused.tolist(), strict=True)])
        # A sum of rounded shares may be a little over 1.
        calibrated = Calibration.of(sure.clip(0, 1), given.exact == 1)
        errors = {**calibrated.to_json(), "errors": confident_errors(examples, judged, refused, given.f1, sure)}
        return Scores(
            main="f1",
            values={
                "f1": scores.f1,
                "exact": scores.exact,
                **scores_of_sorts(scores),
                "calibration_error": calibrated.error,
                "loss": float(of_windows.mean()),
            },
            examples=len(examples),
            details={**scores.to_json(), "articles": self.spec.question_answering.articles, **threshold, **errors},
            statistics=lambda: statistics_of_questions(given, features, of_windows),
            groups=passages_of(examples),
        )

    def with_qa_options(
        self, *, threshold: float | None = None, articles: Articles | None = None
    ) -> "QuestionAnswering":
        """The task with another `question_answering.threshold` and `question_answering.articles`, as far as given.

        A threshold of 0 is the rule of SQuAD 2.0 where none was fitted: no answer where that scores better than the
        best one. A directory of `transformers` does not say whether its model learned this, so unasked it never does.
        """
        own = self.spec.question_answering
        options = replace(
            own, threshold=own.threshold if threshold is None else threshold, articles=articles or own.articles
        )
        return QuestionAnswering(replace(self.spec, question_answering=options), self.unanswerable, self.threshold)

    # Storage

    def labels_to_json(self) -> dict[str, Any]:
        return {"unanswerable": self.unanswerable, "threshold": self.threshold}

    @classmethod
    def from_json(cls, spec: TaskSpec, labels: Mapping[str, Any]) -> "QuestionAnswering":
        unanswerable, threshold = labels.get("unanswerable", False), labels.get("threshold")
        number = isinstance(threshold, int | float) and not isinstance(threshold, bool) and np.isfinite(threshold)
        if not isinstance(unanswerable, bool) or not (threshold is None or number):
            raise PalavraError(f"task {spec.name}: unanswerable is {unanswerable!r} and threshold {threshold!r}, not a "
                               "truth value and a number: fetch the model anew")  # fmt: skip
        return cls(spec, unanswerable, None if threshold is None else float(threshold))


def _columns(spec: TaskSpec) -> dict[str, str]:
    """The names that a file of records has instead of the kind's own."""
    given = (spec.columns.question, spec.columns.context, spec.columns.answers)
    return {name: theirs for name, theirs in zip(COLUMNS, given, strict=True) if theirs is not None}
