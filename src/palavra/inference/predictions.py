"""What a fine-tuned model predicts, one frozen dataclass for each kind of task."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeAlias, cast

from palavra.inference.results import Results, html_table


@dataclass(frozen=True, kw_only=True)
class _Prediction:
    """What all predictions have: `truncated` where the input was longer than what the model reads."""

    # Attributes that JSON has under another name.
    _names: ClassVar[Mapping[str, str]] = {}
    # Attributes that are left out of JSON where they are None or False.
    _optional: ClassVar[tuple[str, ...]] = ("truncated",)

    def to_json(self) -> dict[str, Any]:
        """Return the prediction as the command line prints it."""
        values = cast(dict[str, Any], _listed(asdict(self)))
        left_out = {name for name in self._optional if values[name] is None or values[name] is False}
        return {self._names.get(name, name): value for name, value in values.items() if name not in left_out}

    def __getitem__(self, name: str) -> Any:
        """Return a value by its name in JSON."""
        return self.to_json()[name]

    def rows(self) -> Iterator[Mapping[str, object]]:
        """Return the row of a table: the values that are no lists of alternatives."""
        yield {name: value for name, value in self.to_json().items() if name not in ("best", "spans")}

    def _repr_html_(self) -> str:
        return html_table(list(self.rows()))


def _listed(value: object) -> object:
    """Tuples as lists, as JSON has them."""
    if isinstance(value, dict):
        return {key: _listed(each) for key, each in value.items()}
    return [_listed(each) for each in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True, kw_only=True)
class LabelProbability:
    """A class and its `probability`."""

    label: str
    probability: float


@dataclass(frozen=True, kw_only=True)
class ClassPrediction(_Prediction):
    """The most probable class, and the `best` few, best first; `windows_differ` where the windows of a long text have
    different ones, `abstained` where the class is too improbable for the coverage that the model was trained with."""

    _optional: ClassVar[tuple[str, ...]] = ("truncated", "windows_differ", "abstained")

    label: str
    probability: float
    best: tuple[LabelProbability, ...] = ()
    truncated: bool = False
    windows_differ: bool = False
    abstained: bool = False


@dataclass(frozen=True, kw_only=True)
class LabelScore:
    """A class and its `score`, which is no probability."""

    label: str
    score: float


@dataclass(frozen=True, kw_only=True)
class ScoredClassPrediction(_Prediction):
    """The class with the highest score, of a model trained by negative sampling, and the `best` few, best first. Scores
    lie between 0 and 1 and rank the classes, but are no probabilities and do not sum to 1. The rest as in
    `ClassPrediction`."""

    _optional: ClassVar[tuple[str, ...]] = ClassPrediction._optional

    label: str
    score: float
    best: tuple[LabelScore, ...] = ()
    truncated: bool = False
    windows_differ: bool = False
    abstained: bool = False


@dataclass(frozen=True, kw_only=True)
class LabelSetPrediction(_Prediction):
    """The labels of a text that may have several, each with its probability, and the `best` few of all;
    `windows_differ` where the windows of a long text have different ones."""

    _optional: ClassVar[tuple[str, ...]] = ("truncated", "windows_differ")
    _names: ClassVar[Mapping[str, str]] = {"labels": "label", "probabilities": "probability"}

    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    best: tuple[LabelProbability, ...] = ()
    truncated: bool = False
    windows_differ: bool = False


@dataclass(frozen=True, kw_only=True)
class ValuePrediction(_Prediction):
    """The value of a regression, or of several targets the value of each by its name."""

    value: float | Mapping[str, float]
    truncated: bool = False


@dataclass(frozen=True, kw_only=True)
class SpanPrediction:
    """A span of `text`, `start` to `end` in characters, with its label and the probability of its least certain
    word."""

    label: str
    text: str
    start: int
    end: int
    probability: float


@dataclass(frozen=True, kw_only=True)
class TokenPrediction(_Prediction):
    """The labels of a text's words, each with its probability, and the `spans` that they spell."""

    text: str
    words: tuple[str, ...]
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    spans: tuple[SpanPrediction, ...] = ()
    truncated: bool = False

    def rows(self) -> Iterator[Mapping[str, object]]:
        """Return a row a span."""
        return (vars(span) for span in self.spans)


@dataclass(frozen=True, kw_only=True)
class CandidateAnswer:
    """One of the answers found: characters `start` to `end` of the context."""

    answer: str
    probability: float
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class AnswerPrediction(_Prediction):
    """The answer to a question: characters `start` to `end` of the context, None where there is no answer, which has
    the `no_answer_probability` where it can be one."""

    _optional: ClassVar[tuple[str, ...]] = ("truncated", "no_answer_probability")

    answer: str
    probability: float
    start: int | None
    end: int | None
    no_answer_probability: float | None = None
    best: tuple[CandidateAnswer, ...] = ()
    truncated: bool = False


@dataclass(frozen=True, kw_only=True)
class ChoicePrediction(_Prediction):
    """The most probable of the choices: its number `label` from 0 and its text, and the probability of each."""

    label: int
    choice: str
    probability: float
    probabilities: tuple[float, ...]
    truncated: bool = False


Prediction: TypeAlias = (
    ClassPrediction
    | ScoredClassPrediction
    | LabelSetPrediction
    | ValuePrediction
    | TokenPrediction
    | AnswerPrediction
    | ChoicePrediction
)


class Predictions(Results[Prediction]):
    """A list of predictions, one for each input, in order."""

    def to_json(self) -> list[dict[str, Any]]:
        """Return the predictions as the command line prints them."""
        return [one.to_json() for one in self]


def prediction_of(values: Mapping[str, Any]) -> Prediction:
    """Return what a task predicts, given as JSON has it, as the dataclass of its kind."""
    kind = _kind_of(values)
    names = {in_json: name for name, in_json in kind._names.items()}
    made = {names.get(key, key): _frozen(kind, key, value) for key, value in values.items()}
    return cast(Prediction, kind(**made))


def _frozen(kind: type[_Prediction], key: str, value: Any) -> Any:
    """Lists as tuples, and the alternatives in them as dataclasses."""
    if key not in ("best", "spans"):
        return tuple(value) if isinstance(value, list) else value
    part: type[Any] = LabelScore if kind is ScoredClassPrediction else LabelProbability
    if kind in (TokenPrediction, AnswerPrediction):
        part = SpanPrediction if kind is TokenPrediction else CandidateAnswer
    return tuple(part(**each) for each in value)


def _kind_of(values: Mapping[str, Any]) -> type[_Prediction]:
    if "spans" in values:
        return TokenPrediction
    if "answer" in values:
        return AnswerPrediction
    if "choice" in values:
        return ChoicePrediction
    if "value" in values:
        return ValuePrediction
    if "score" in values:
        return ScoredClassPrediction
    return LabelSetPrediction if isinstance(values["label"], list) else ClassPrediction
