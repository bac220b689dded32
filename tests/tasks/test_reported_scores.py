"""Every score that a task reports is one that may decide, and the other way round."""

from typing import Any

import numpy as np
import pytest
from builders.classification import examples_of
from builders.prediction import EXAMPLES, model_of
from builders.question_answering import QUESTIONS
from builders.tasks import fit, score, trained
from builders.token_classification import EXAMPLES as SENTENCES
from builders.token_classification import tagged

from palavra.finetuning.job import selection_metric
from palavra.metrics.names import METRICS
from palavra.tasks.spec import TaskSpec
from palavra.tasks.text_examples import TextExample

TOKENIZER = trained()
NUMBERS = [TextExample(first="a b", second=None, label=(float(n % 3),), where=f"f:{n}") for n in range(8)]
CHOICES = model_of("multiple-choice").task()[1].reader
CHOSEN = [CHOICES.input_of(EXAMPLES["multiple-choice"], "f:1") for _ in range(3)]
CASES: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "two classes": ({"kind": "classification"}, examples_of([*"abab"])),
    "seven classes": ({"kind": "classification"}, examples_of([*"abcdefg"] * 2)),
    "one class": ({"kind": "classification"}, examples_of(["a"] * 3)),
    "label sets": ({"kind": "classification", "multilabel": True}, examples_of([("a",), ("a", "b"), (), ("b",)])),
    "numbers": ({"kind": "regression"}, NUMBERS),
    "spans": ({"kind": "token-classification"}, SENTENCES),
    "words": ({"kind": "token-classification"}, [tagged("o gato correu", "DET NOUN VERB"), tagged("gato", "NOUN")]),
    "answers": ({"kind": "question-answering"}, QUESTIONS[:7]),
    "no answers": ({"kind": "question-answering"}, QUESTIONS),
    "choices": ({"kind": "multiple-choice"}, CHOSEN),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_reported_may_decide(case: str) -> None:
    options, examples = CASES[case]
    if case == "choices":
        examples = [type(one)(text=one.text, choices=one.choices, label=n % 2, where="f:1")
                    for n, one in enumerate(examples)]  # fmt: skip
    task = fit(TaskSpec(**options), [*examples, *examples_of(["b"])] if case == "one class" else examples)
    encoded = task.encoder.encode(examples, TOKENIZER, 64, True)
    random = np.random.default_rng(0)
    shape = {"regression": 1, "question-answering": 2, "multiple-choice": 1}
    width = shape.get(task.spec.kind) or len(task.output.labels)
    outputs = np.log(random.dirichlet(np.ones(width), len(encoded.rows))) if width > 2 else random.normal(
        size=(len(encoded.rows), width))  # fmt: skip
    scores = score(task, examples, encoded, (outputs.astype(np.float32),))
    assert set(scores.values) == set(task.scorer.metrics) - set(task.scorer.undefined(examples))
    assert scores.main == task.scorer.metrics[0]
    assert set(scores.values) <= set(METRICS)
    for name in scores.values:
        assert selection_metric(name, task) == name
