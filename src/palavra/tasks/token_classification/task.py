"""Token labelling: a label for every word, which may spell spans (names, dates, prices) or stand alone (parts of
speech) (Devlin et al. 2019, section 5.3)."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, cast, get_args

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax
from torch import Tensor, nn

from palavra.batch import Batch
from palavra.data.tables import kind_of
from palavra.errors import PalavraError
from palavra.losses import Loss
from palavra.metrics import classification as metrics
from palavra.metrics.calibration import fit_temperature
from palavra.metrics.resampled import Doubles
from palavra.metrics.tag_schemes import (
    ROLES,
    Scheme,
    decode_tags,
    detect_scheme,
    encode_tags,
    parse_tag,
    transitions,
    viterbi,
)
from palavra.model.families.tasks import Form
from palavra.model.task_heads import Level
from palavra.model.task_outputs.build import build_output
from palavra.model.task_outputs.layers import ClassifierOutput
from palavra.tasks.features import EncodedExamples, Int64Array
from palavra.tasks.labels import composed, heaviest, known_labels, label_map
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import Located, ModelOutputs, Prediction, Scores
from palavra.tasks.temperature_scaling import Tempered
from palavra.tasks.token_classification.encoding import encode_sentences, word_texts
from palavra.tasks.token_classification.examples import Labels, TaggedSentence, bounds, read_sentences, sentence_input
from palavra.tasks.token_classification.scores import (
    SPAN_METRICS,
    WORD_METRICS,
    JudgedWords,
    LogProbabilities,
    scores_of_spans,
    scores_of_words,
)
from palavra.tokenizer import Tokenizer

# Files whose sentences are predicted: records, and a word a line. A .txt is a text a line.
TABLES = (".csv", ".jsonl", ".json", ".parquet")
COLUMNS = (".conll", ".conllu", ".tsv", ".bio", ".iob")
# Has all the roles there are: with it `decode_tags` reads tags of every scheme.
ANY: Scheme = "bioes"
# What a label that spells a span begins with, before a hyphen.
SPELLING = ROLES[ANY].replace("O", "")


class TokenClassification(Tempered[TaggedSentence]):
    """`labels` are the classes in order, `counts` how many words of each were in training, `scheme` how the labels
    spell spans.

    Whatever scheme the data are written in, the model learns its own: `scheme` of the specification, or the one that
    was found. A tag that its scheme does not allow at its place is read as conlleval reads it, which keeps every span.
    """

    kinds = ("token-classification",)
    level: ClassVar[Level] = "token"

    def __init__(self, spec: TaskSpec, labels: Labels, counts: Sequence[int], scheme: Scheme, temperature: float = 1.0):
        super().__init__(spec, temperature)
        self.labels, self.counts, self.scheme = labels, tuple(counts), scheme
        names = [composed(label) for label in labels]
        self._number = {name: number for number, name in enumerate(names)}
        # Data may write the types in any scheme.
        self._readable = set(names) if scheme == "plain" else set(_tags_of(_types(names), ANY))

    @property
    def spells_spans(self) -> bool:
        """Whether labels of several words make a span."""
        return self.scheme != "plain"

    @property
    def form(self) -> Form:
        return "TokenClassification"

    @property
    def metrics(self) -> tuple[str, ...]:
        return SPAN_METRICS if self.spells_spans else WORD_METRICS

    @property
    def files(self) -> tuple[str, ...]:
        return (*TABLES, *COLUMNS)

    # Data

    @classmethod
    def read(cls, spec: TaskSpec, source: str) -> list[TaggedSentence]:
        return read_sentences(spec, source)

    @classmethod
    def check_columns(cls, spec: TaskSpec, given: Collection[str], sources: Sequence[str]) -> None:
        del sources
        if "text" in given:
            raise PalavraError(
                f"--text would not be read: {spec.name} reads labelled words; name their column with --words"
            )

    @classmethod
    def fit(cls, spec: TaskSpec, examples: Sequence[TaggedSentence]) -> "TokenClassification":
        """Every type that was seen gets every tag of the scheme: a longer span of a known type, first met in the test
        data, is no new label, and any sequence of valid tags can be spelled. O is always there."""
        source = spec.train or "the training data"
        try:
            found = detect_scheme(_labels(example) for example in examples)
        except PalavraError as error:
            raise PalavraError(f"{source}: {error}") from None
        if spec.token_classification.scheme is None and found == "plain":
            _refuse_stray_tags(examples)
        scheme: Scheme = spec.token_classification.scheme or found
        with_label_counts = Counter(chain.from_iterable(_normalized(example, scheme) for example in examples))
        labels = tuple(sorted(with_label_counts))
        if scheme != "plain":
            labels = _tags_of(_types(with_label_counts), scheme)
        if len(labels) < 2:
            only = f"only one label, {labels[0]!r}" if labels else "no label at all"
            raise PalavraError(f"{source} has {only}: labelling needs at least two; check the label column")
        return cls(spec, labels, [with_label_counts[label] for label in labels], scheme)

    def with_label_counts(self, examples: Sequence[TaggedSentence]) -> "TokenClassification":
        found = Counter(chain.from_iterable(_normalized(example, self.scheme) for example in examples))
        return TokenClassification(
            self.spec, self.labels, [found[label] for label in self.labels], self.scheme, self.temperature
        )

    def check(self, examples: Sequence[TaggedSentence]) -> None:
        for example in examples:
            number = next((n for n, label in enumerate(_labels(example)) if label not in self._readable), None)
            if number is None:
                # Labels from elsewhere may lack a tag of a type that they have.
                tags = _normalized(example, self.scheme)
                number = next((n for n, tag in enumerate(tags) if tag not in self._number), None)
            if number is not None:
                raise self._unseen(example, number)

    def _unseen(self, example: TaggedSentence, number: int) -> PalavraError:
        return PalavraError(
            f"{example.where}: word {number + 1}, {example.words[number]!r}, has the label "
            f"{_labels(example)[number]!r}, which was not in training, which has "
            f"{known_labels(self.labels)}: mend the label, or train with examples of it"
        )

    def gold(self, example: TaggedSentence) -> Any:
        return list(_labels(example))

    def read_inputs(self, source: str, given: Collection[str] = ()) -> Iterator[Located]:
        """The records of a file, or the sentences of one of columns, whose labels are not looked at."""
        if kind_of(Path(source), TABLES) is not None:
            return super().read_inputs(source)
        self.check_columns(self.spec, given, [source])
        sentences = read_sentences(self.spec, source)
        return (Located({"text": one.text, "words": list(one.words)}, one.where) for one in sentences)

    def input_of(self, value: Any, where: str) -> TaggedSentence:
        """Texts, which are divided into words; lists of words; or mappings with `text`, `words` or both (the words are
        then those of the text)."""
        return sentence_input(self.spec, value, where)

    def summary(self, examples: Sequence[TaggedSentence]) -> dict[str, Any]:
        labels = Counter(chain.from_iterable(_labels(example) for example in examples))
        found = {"examples": len(examples), "words": labels.total(), "labels": dict(labels.most_common())}
        if not self.spells_spans:
            return found
        spans = Counter(span.label for example in examples for span in decode_tags(_labels(example), ANY))
        mended = sum(_normalized(example, self.scheme) != example.labels for example in examples)
        return {**found, "scheme": self.scheme, "spans": dict(spans.most_common()), "tags_rewritten": mended}

    # The model

    def encode(
        self,
        examples: Sequence[TaggedSentence],
        tokenizer: Tokenizer,
        context: int,
        segments: bool,
        *,
        split: bool = False,
    ) -> EncodedExamples:
        """See `encode_sentences`. Long sentences are always split: every word needs its label."""
        del segments, split
        texts = [word_texts(example.text, example.words, example.spans) for example in examples]
        features, row_words = encode_sentences(texts, tokenizer, context, self.spec.token_classification.subwords)
        if not examples or examples[0].labels is None:
            return features
        return replace(features, labels=self._gold(examples)[row_words], label_counts=features.row_counts)

    def _gold(self, examples: Sequence[TaggedSentence]) -> Int64Array:
        """The classes of all words (W,)."""
        names = chain.from_iterable(_normalized(example, self.scheme) for example in examples)
        return np.fromiter((self._number[name] for name in names), dtype=np.int64)

    def build_output(self, width: int) -> nn.Module:
        return build_output(self.spec.output, width, np.array(self.counts), self.labels)

    def loss(self, output: nn.Module, x: Tensor, batch: Batch) -> Loss:
        """Cross-entropy of the rows: of words, or of subwords where all carry their word's label."""
        assert isinstance(output, ClassifierOutput)
        weights = output.inverse_frequencies if self.spec.class_weights == "balanced" else None
        return Loss(output.total_loss(x, batch.labels, weights, self.spec.label_smoothing), batch.labelled)

    def chance_loss(self, features: EncodedExamples) -> float:
        return super().chance_loss(features) * (heaviest(self.counts) if self.spec.class_weights == "balanced" else 1)

    def infer(self, output: nn.Module, x: Tensor, batch: Batch) -> tuple[Tensor, ...]:
        """Log-probabilities (R, K) of the classes, at temperature 1."""
        assert isinstance(output, ClassifierOutput)
        return (output.log_probabilities(x).float(),)

    # Predictions

    def decode(self, examples: Sequence[TaggedSentence], log_p: LogProbabilities) -> Int64Array:
        """The class of every word (W,) by the log-probabilities (W, K) of words."""
        if self.spells_spans and self.spec.token_classification.constrained:
            lengths = np.array([len(example.words) for example in examples if example.words], dtype=np.int64)
            return viterbi(log_p, lengths, *transitions(self.labels, self.scheme))
        best: Int64Array = log_p.argmax(1).astype(np.int64)
        return best

    def predict(
        self, examples: Sequence[TaggedSentence], features: EncodedExamples, inferred: ModelOutputs
    ) -> list[Prediction]:
        """`words`, `labels` and `probabilities` of words, and `spans` with character offsets into `text`:
        `text[start:end]` is the span. Labels that spell no spans make a span of every word.

        The probability of a span is that of its least certain word: it is right only if all its words are, and these
        are right or wrong together far too often to be multiplied.
        """
        log_p = _of_words(features, self.tempered(features, inferred))
        chosen = self.decode(examples, log_p)
        certain = np.exp(log_p[np.arange(len(chosen)), chosen]).tolist()
        labels = [self.labels[number] for number in chosen.tolist()]
        return [
            self._prediction(example, labels[start:stop], certain[start:stop])
            for example, (start, stop) in zip(examples, bounds(examples), strict=True)
        ]

    def _prediction(self, example: TaggedSentence, labels: list[str], certain: list[float]) -> Prediction:
        found = [(number, number + 1, label) for number, label in enumerate(labels)]
        if self.spells_spans:
            found = [(span.start, span.end, span.label) for span in decode_tags(labels, self.scheme)]
        spans = []
        for first, last, label in found:
            start, end = example.spans[first][0], example.spans[last - 1][1]
            probability = min(certain[first:last])
            text = example.text[start:end]
            spans.append({"label": label, "text": text, "start": start, "end": end, "probability": probability})
        words = list(example.words)
        return {"text": example.text, "words": words, "labels": labels, "probabilities": certain, "spans": spans}

    def score(self, examples: Sequence[TaggedSentence], features: EncodedExamples, inferred: ModelOutputs) -> Scores:
        """Spans as conlleval counts them; where labels spell none, the labels of words. Calibration is that of words;
        `loss` is the mean over the rows, -log p of the right class in nats."""
        inferred = self.tempered(features, inferred)
        log_p = _of_words(features, inferred)
        # Only a probability of 0 is not a number that is one.
        metrics.check_finite(np.exp(log_p), "words")
        chosen, gold = self.decode(examples, log_p), self._gold(examples)
        judged = JudgedWords(examples, self.labels, log_p, chosen, gold, features, inferred)
        if not self.spells_spans:
            return scores_of_words(judged)
        labels = [self.labels[number] for number in chosen.tolist()]
        predicted = [decode_tags(labels[start:stop], self.scheme) for start, stop in bounds(examples)]
        return scores_of_spans(judged, [decode_tags(_labels(example), ANY) for example in examples], predicted)

    def divided(self, features: EncodedExamples, inferred: ModelOutputs, temperatures: Doubles) -> ModelOutputs:
        (log_p,) = inferred
        of_rows = np.repeat(temperatures[features.example], features.row_counts).astype(np.float32)
        return (log_softmax(log_p / of_rows[:, None], axis=1),)

    def best_temperature(
        self, features: EncodedExamples, inferred: ModelOutputs, chosen: npt.NDArray[np.bool_]
    ) -> float:
        rows = np.repeat(chosen[features.example], features.row_counts)
        if features.row_starts is not None:
            rows &= features.row_starts
        return fit_temperature(inferred[0][rows], features.labels[rows].astype(np.int64)) if rows.any() else 1.0

    def at(self, temperature: float) -> "TokenClassification":
        return TokenClassification(self.spec, self.labels, self.counts, self.scheme, float(temperature))

    # Storage

    def labels_to_json(self) -> dict[str, Any]:
        return {
            "labels": list(self.labels),
            "counts": list(self.counts),
            "scheme": self.scheme,
            "temperature": self.temperature,
        }

    @classmethod
    def from_json(cls, spec: TaskSpec, labels: Mapping[str, Any]) -> "TokenClassification":
        """A model from elsewhere has no scheme: its labels show which."""
        names, counts = tuple(labels["labels"]), tuple(labels["counts"])
        scheme = labels.get("scheme") or _scheme_of(names)
        if len(names) != len(counts) or len(set(names)) != len(names) or scheme not in get_args(Scheme):
            raise PalavraError(f"the labels of task {spec.name!r} are damaged: take the model from another copy")
        return cls(spec, names, counts, cast(Scheme, scheme), float(labels.get("temperature", 1.0)))

    def config_values(self) -> dict[str, Any]:
        return label_map(self.labels)


def _refuse_stray_tags(examples: Sequence[TaggedSentence]) -> None:
    """Raise PalavraError, with file and line, for the first label that spells no span where most others do: one slip
    would make labels of single words of all of them."""
    counts = Counter(chain.from_iterable(_labels(example) for example in examples))
    spelling = {label for label in counts if label[:1] in SPELLING and label[1:2] == "-"}
    stray = set(counts) - spelling - {"O"}
    if "O" not in counts or sum(counts[label] for label in spelling) <= sum(counts[label] for label in stray):
        return
    for example in examples:
        for number, label in enumerate(_labels(example)):
            if label in stray:
                raise PalavraError(
                    f"{example.where}: word {number + 1}, {example.words[number]!r}, has the label {label!r}, where "
                    "most others spell spans (B-, I-): mend it, or give --scheme=plain for labels of single words"
                )


def _types(tags: Iterable[str]) -> list[str]:
    return sorted({parse_tag(tag)[1] for tag in tags if tag != "O"})


def _tags_of(types: Iterable[str], scheme: Scheme) -> Labels:
    """O, and every tag that the scheme has for these types."""
    roles = ROLES[scheme].replace("O", "")
    return ("O", *(f"{role}-{name}" if name else role for name in types for role in roles))


def _scheme_of(names: Labels) -> Scheme:
    """IOB1 where some I- has no B- of its type: only there can it begin a span."""
    scheme = detect_scheme([names])
    begun = {parse_tag(name)[1] for name in names if parse_tag(name)[0] == "B"}
    inside = {parse_tag(name)[1] for name in names if parse_tag(name)[0] == "I"}
    return "iob1" if scheme == "bio" and inside - begun else scheme


def _labels(example: TaggedSentence) -> Labels:
    assert example.labels is not None
    return example.labels


def _normalized(example: TaggedSentence, scheme: Scheme) -> Labels:
    """The labels as `scheme` writes the spans that they spell. Raises PalavraError, with file and line, for one that is
    no tag."""
    labels = _labels(example)
    if scheme == "plain":
        return labels
    try:
        return tuple(encode_tags(decode_tags(labels, ANY), len(labels), scheme))
    except PalavraError as error:
        raise PalavraError(f"{example.where}: {error}") from None


def _of_words(features: EncodedExamples, inferred: ModelOutputs) -> LogProbabilities:
    """The log-probabilities (W, K) of words: where all subwords are read, those of the first one."""
    (rows,) = inferred
    return rows if features.row_starts is None else rows[features.row_starts]
