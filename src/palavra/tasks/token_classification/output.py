"""Output of token classification: the layer, its loss, valid tag sequences, and predictions with spans."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from palavra.metrics.calibration import best_temperature, negative_log_likelihood
from palavra.metrics.classification import check_finite
from palavra.metrics.resampled import BoolArray, Doubles
from palavra.metrics.tag_schemes import Scheme, decode_tags, transitions, viterbi
from palavra.metrics.top_k import chances, gold_ranks
from palavra.model.families.tasks import Form
from palavra.model.task_heads import Level
from palavra.tasks.class_output import ClassOutput
from palavra.tasks.encoded_examples import EncodedExamples, Int64Array
from palavra.tasks.task import PLAIN, DecodeOptions, ModelOutputs, Prediction
from palavra.tasks.token_classification.examples import TaggedSentence, bounds

LogProbabilities = npt.NDArray[np.floating]


@dataclass(frozen=True)
class DecodedWords:
    """Log-probabilities of `rows` (R, K) and `words` (W, K), and the class `chosen` for every word (W,)."""

    rows: LogProbabilities
    words: LogProbabilities
    chosen: Int64Array

    @property
    def confidence(self) -> LogProbabilities:
        """Return the log-probability of each word's chosen class (W,)."""
        found: LogProbabilities = self.words[np.arange(len(self.chosen)), self.chosen]
        return found

    def hits(self, gold: Int64Array) -> Doubles:
        """Return what each word counts for accuracy (W,): `chances` if its class is the most probable one, and not one
        that only a valid sequence asks for."""
        above, tied = gold_ranks(gold, self.words)
        return np.where(self.confidence == self.words.max(1), chances(1, above, tied), self.chosen == gold)


@dataclass(frozen=True, kw_only=True)
class TagOutput(ClassOutput[TaggedSentence, DecodedWords]):
    """A softmax over the tags of each row; `scheme` is their tagging scheme."""

    scheme: Scheme
    form: ClassVar[Form] = "TokenClassification"
    level: ClassVar[Level] = "token"

    def decode(
        self, examples: Sequence[TaggedSentence], encoded: EncodedExamples, outputs: ModelOutputs,
        options: DecodeOptions = PLAIN,
    ) -> DecodedWords:  # fmt: skip
        """Return the class of every word; with a tagging scheme, the most probable valid sequence of each sentence. If
        all subwords are read, a word takes the log-probabilities of its first one."""
        (rows,) = outputs
        divided = self.divided(rows, np.repeat(encoded.example, encoded.row_counts), options)
        rows = rows if divided is rows else log_softmax(divided, axis=1)
        words = rows if encoded.row_starts is None else rows[encoded.row_starts]
        # A log-probability of -inf is valid: check probabilities instead.
        check_finite(np.exp(words), "words")
        if self.scheme == "plain" or not self.spec.token_classification.constrained:
            return DecodedWords(rows, words, words.argmax(1).astype(np.int64))
        lengths = np.array([len(example.words) for example in examples if example.words], dtype=np.int64)
        return DecodedWords(rows, words, viterbi(words, lengths, *transitions(self.labels, self.scheme)))

    def predictions(self, examples: Sequence[TaggedSentence], decoded: DecodedWords) -> list[Prediction]:
        """Return `words`, `labels` and `probabilities` of words, and `spans` with character offsets into `text`. With
        plain labels every word is a span. The probability of a span is the minimum over its words; a product would
        assume that their errors are independent."""
        certain = np.exp(decoded.confidence).tolist()
        labels = [self.labels[number] for number in decoded.chosen.tolist()]
        return [
            self._prediction(example, labels[start:stop], certain[start:stop])
            for example, (start, stop) in zip(examples, bounds(examples), strict=True)
        ]

    def _prediction(self, example: TaggedSentence, labels: list[str], certain: list[float]) -> Prediction:
        found = [(number, number + 1, label) for number, label in enumerate(labels)]
        if self.scheme != "plain":
            found = [(span.start, span.end, span.label) for span in decode_tags(labels, self.scheme)]
        spans = []
        for first, last, label in found:
            start, end = example.spans[first][0], example.spans[last - 1][1]
            probability = min(certain[first:last])
            text = example.text[start:end]
            spans.append({"label": label, "text": text, "start": start, "end": end, "probability": probability})
        words = list(example.words)
        return {"text": example.text, "words": words, "labels": labels, "probabilities": certain, "spans": spans}

    def best_temperature(self, encoded: EncodedExamples, outputs: ModelOutputs, chosen: BoolArray) -> float:
        """Return the temperature with the lowest loss on the words of the `chosen` examples (E,)."""
        rows = np.repeat(chosen[encoded.example], encoded.row_counts)
        if encoded.row_starts is not None:
            rows &= encoded.row_starts
        if not rows.any():
            return 1.0
        logits, labels = outputs[0][rows], encoded.labels[rows].astype(np.int64)
        return best_temperature(lambda at: negative_log_likelihood(logits, labels, at), examples=int(chosen.sum()))
