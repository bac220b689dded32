"""Every head that `transformers` puts on a family computes the same here, and directories go both ways."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from builders.families import CASES, assert_same, theirs
from builders.models import layout_of, scramble
from torch import Tensor

from palavra.batch import Batch
from palavra.model.families.family import Form
from palavra.model.families.tasks import TASK_FORMATS
from palavra.model.task_heads import TaskModel
from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.regression.output import TargetOutput
from palavra.tasks.saved_model import load_task_model, save_task_model

LENGTHS = [9, 1, 24, 5]
LABELS = {str(number): name for number, name in enumerate(("um", "dois", "três"))}
HEADS = [(family, form) for family, known in TASK_FORMATS.items() for form in known.forms]
# What differs from the default head of the class.
FURTHER: list[tuple[str, Form, dict[str, Any]]] = [
    ("modernbert", "SequenceClassification", {"classifier_pooling": "mean"}),
    ("eurobert", "SequenceClassification", {"classifier_pooling": "mean"}),
    ("eurobert", "SequenceClassification", {"classifier_pooling": "bos"}),
    ("llama", "SequenceClassification", {"problem_type": "multi_label_classification"}),
    ("roberta", "SequenceClassification", {"problem_type": "regression"}),
    ("llama", "SequenceClassification", {"problem_type": "regression"}),
]


def reference(family: str, form: Form, **changes: Any) -> Any:
    labels = {} if form in ("QuestionAnswering", "MultipleChoice") else {"id2label": LABELS}
    auto = getattr(transformers, f"AutoModelFor{form}")
    return theirs(family, CASES[family][0], auto, **labels, **changes)


def features(form: Form) -> EncodedExamples:
    """Random sequences; all tokens are read where the form classifies tokens."""
    random = np.random.default_rng(0)
    sizes = np.array(LENGTHS, dtype=np.int64)
    whole = form in ("SequenceClassification", "MultipleChoice")
    counts = np.ones_like(sizes) if whole else sizes
    return EncodedExamples(
        input_ids=random.integers(5, 50, size=int(sizes.sum())).astype(np.uint32),
        lengths=sizes,
        segment_ids=None,
        example=np.arange(len(sizes)),
        rows=np.concatenate([np.arange(count) for count in counts]),
        row_counts=counts,
        labels=np.empty(0, dtype=np.int64),
        label_counts=np.zeros(len(sizes), dtype=np.int64),
    )


def our_scores(model: TaskModel, batch: Batch) -> Tensor:
    """What the output layer gives for every row."""
    output = model.head(batch.task).output
    with torch.inference_mode():
        hidden = model.eval()(batch, layout_of(batch))
        return output.linear(hidden) if hasattr(output, "linear") else output(hidden)  # type: ignore[no-any-return, operator]


def their_scores(model: Any, form: Form, encoded: EncodedExamples) -> Tensor:
    """The logits of each sequence alone."""
    rows = []
    with torch.inference_mode():
        for ids in np.split(encoded.input_ids.astype(np.int64), np.cumsum(encoded.lengths)[:-1]):
            inputs = torch.from_numpy(ids)[None]
            found = model(inputs[None] if form == "MultipleChoice" else inputs)
            if form == "QuestionAnswering":
                rows.append(torch.stack((found.start_logits[0], found.end_logits[0]), 1))
            else:
                rows.append(found.logits[0] if form == "TokenClassification" else found.logits)
    return torch.cat(rows)


@pytest.mark.parametrize(("family", "form", "changes"), [*((family, form, {}) for family, form in HEADS), *FURTHER])
def test_heads_go_both_ways(family: str, form: Form, changes: dict[str, Any], tmp_path: Path) -> None:
    first = reference(family, form, **changes)
    first.save_pretrained(tmp_path / "theirs")
    encoded = features(form)
    loaded = load_task_model(tmp_path / "theirs")
    ((name, task),) = loaded.tasks.items()
    batch = encoded.batch(np.arange(len(LENGTHS)), name)
    assert task.output.form == form
    assert all(missing.endswith(".counts") for missing in loaded.missing)
    assert_same(our_scores(loaded.model, batch), their_scores(first, form, encoded))

    torch.manual_seed(2)
    scramble(loaded.model)
    assert save_task_model(loaded.model, loaded.tasks, tmp_path / "ours", {})
    auto = getattr(transformers, f"AutoModelFor{form}")
    second, report = auto.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert {key: value for key, value in report.items() if value} == {}
    assert type(second).__name__ == type(first).__name__
    assert second.config.id2label == first.config.id2label
    assert_same(our_scores(loaded.model, batch), their_scores(second.eval(), form, encoded))
    again = load_task_model(tmp_path / "ours")
    assert_same(our_scores(again.model, batch), our_scores(loaded.model, batch))


def test_the_outputs_that_transformers_cannot_express_are_kept(tmp_path: Path) -> None:
    """A causal family's class has no bias in its output; a regression that standardizes its targets needs one."""
    reference("llama", "SequenceClassification", problem_type="regression").save_pretrained(tmp_path / "theirs")
    loaded = load_task_model(tmp_path / "theirs")
    ((name, task),) = loaded.tasks.items()
    assert isinstance(task.output, TargetOutput)
    scaled = replace(task, output=replace(task.output, in_units=False, mean=(3.0,) * 3, deviation=(2.0,) * 3))
    assert not save_task_model(loaded.model, {name: scaled}, tmp_path / "ours", {})
    batch = features("SequenceClassification").batch(np.arange(len(LENGTHS)), name)
    again = load_task_model(tmp_path / "ours")
    assert_same(our_scores(again.model, batch), 2 * our_scores(loaded.model, batch) + 3)


def test_all_forms_of_transformers_are_there() -> None:
    """A form that a family lacks here is one that `transformers` lacks too."""
    for family, known in TASK_FORMATS.items():
        for form in ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice"):
            classes = getattr(transformers.models.auto.modeling_auto, _mapping(form))
            assert (family in classes) == (form in known.forms), (family, form)
            if form in known.forms:
                assert classes[family] == f"{known.prefix}For{form}"


def _mapping(form: str) -> str:
    words = {"SequenceClassification": "SEQUENCE_CLASSIFICATION", "TokenClassification": "TOKEN_CLASSIFICATION",
             "QuestionAnswering": "QUESTION_ANSWERING", "MultipleChoice": "MULTIPLE_CHOICE"}  # fmt: skip
    return f"MODEL_FOR_{words[form]}_MAPPING_NAMES"
