"""Token classification: a label for every word, either a span tag (names, dates, prices) or a plain label (parts of
speech) (Devlin et al. 2019, section 5.3)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, cast, get_args

from palavra.errors import PalavraError
from palavra.metrics.tag_schemes import Scheme, detect_scheme
from palavra.tasks.labels import Labels, at_least_two
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import AnyTask, Kind, Task
from palavra.tasks.temperature_scaling import temperature_fit
from palavra.tasks.token_classification.encoding import TagEncoder
from palavra.tasks.token_classification.examples import TaggedSentence, reader
from palavra.tasks.token_classification.output import TagOutput
from palavra.tasks.token_classification.scores import SpanScorer, WordScorer
from palavra.tasks.token_classification.tags import (
    labels_of,
    normalized,
    refuse_stray_tags,
    scheme_of,
    tags_of,
    types_of,
)


def fit(spec: TaskSpec, examples: Sequence[TaggedSentence], trained: Sequence[TaggedSentence]) -> AnyTask:
    """Build the task with the labels of the examples, in the specified scheme or the detected one.

    Every type in the examples gets every tag of the scheme, so that a longer span of a known type in the test data adds
    no label. O is always included.
    """
    try:
        found = detect_scheme(labels_of(example) for example in examples)
    except PalavraError as error:
        raise PalavraError(f"{spec.source}: {error}") from None
    if spec.token_classification.scheme is None and found == "plain":
        refuse_stray_tags(examples)
    scheme: Scheme = spec.token_classification.scheme or found
    seen = set(chain.from_iterable(normalized(example, scheme) for example in examples))
    labels = tuple(sorted(seen)) if scheme == "plain" else tags_of(types_of(seen), scheme)
    at_least_two(labels, spec.source, "labelling")
    counts = Counter(chain.from_iterable(normalized(example, scheme) for example in trained))
    return _task(spec, labels, [counts[label] for label in labels], scheme, 1.0)


def from_json(spec: TaskSpec, values: Mapping[str, Any]) -> AnyTask:
    """Rebuild the task from the values of `to_json`; without a scheme, detect it from the labels."""
    labels, counts = tuple(values["labels"]), tuple(values["counts"])
    scheme = values.get("scheme") or scheme_of(labels)
    if len(labels) != len(counts) or len(set(labels)) != len(labels) or scheme not in get_args(Scheme):
        raise PalavraError(f"the labels of task {spec.name!r} are damaged: take the model from another copy")
    return _task(spec, labels, counts, cast(Scheme, scheme), float(values.get("temperature", 1.0)))


def _task(spec: TaskSpec, labels: Labels, counts: Sequence[int], scheme: Scheme, temperature: float) -> AnyTask:
    read = reader(spec)
    return Task(
        spec=spec,
        reader=read,
        encoder=TagEncoder(labels=labels, scheme=scheme, subwords=spec.token_classification.subwords),
        output=TagOutput(spec=spec, labels=labels, counts=tuple(counts), scheme=scheme, temperature=temperature),
        scorer=WordScorer(labels=labels) if scheme == "plain" else SpanScorer(labels=labels),
        calibrate=temperature_fit(read),
    )


KIND = Kind(reader=reader, fit=fit, from_json=from_json)
