"""Classification: reading labels, the loss against torch's, predictions, scores, and what people do wrong."""

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score
from sklearn.utils.class_weight import compute_class_weight
from tiny_tasks import batch_of, build, inferred, loss_of, overfit, trained, with_intervals
from torch import Tensor

from palavra.batch import Batch
from palavra.errors import PalavraError
from palavra.model.outputs import OutputConfig, Softmax
from palavra.model.task_heads import HeadConfig
from palavra.tasks.calibration import halves
from palavra.tasks.features import Features
from palavra.tasks.kinds.classification import Classification
from palavra.tasks.spec import Columns, LabellingOptions, TaskSpec, check_fields
from palavra.tasks.texts import TextExample, encode_texts
from palavra.tokenizer import Tokenizer

SPEC = TaskSpec(kind="classification", train="train.csv")
SEVERAL = replace(SPEC, multilabel=True)
PAIRS = replace(SPEC, kind="pairs")
TEXTS = ["the old harbour", "um gato correu pela rua", "peter kept the blue one", "maria sold her boat to john", "a"]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained()


def example(number: int, *labels: str, pair: bool = False) -> TextExample:
    second = TEXTS[(number + 2) % len(TEXTS)] if pair else None
    return TextExample(first=TEXTS[number % len(TEXTS)], second=second, label=labels, where=f"train.csv:{number + 2}")


def examples_of(labels: Sequence[str | tuple[str, ...]], pair: bool = False) -> list[TextExample]:
    return [example(n, *((one,) if isinstance(one, str) else one), pair=pair) for n, one in enumerate(labels)]


def write(path: Path, text: str, encoding: str = "utf-8") -> str:
    path.write_bytes(text.encode(encoding))
    return str(path)


def labels_of(examples: Sequence[TextExample]) -> list[Any]:
    return [one.label for one in examples]


# Reading


def test_a_spreadsheets_csv_is_read_as_it_is_meant(tmp_path: Path) -> None:
    """A byte order mark, semicolons, quotes and line ends in fields, labels with blanks and accents."""
    text = (
        "\ufefftext;label\r\n"
        '"uma ""boa"" praia;\r\nmesmo";muito bom\r\n'
        "o mar, calmo;não é mau\r\n"
        '"fim";  muito bom \r\n'
    )
    examples = Classification.read(SPEC, write(tmp_path / "t.csv", text))
    assert [one.first for one in examples] == ['uma "boa" praia;\nmesmo', "o mar, calmo", "fim"]
    assert labels_of(examples) == [("muito bom",), ("não é mau",), ("muito bom",)]
    assert [one.where.rpartition(":")[2] for one in examples] == ["2", "4", "5"]
    task = Classification.fit(SPEC, examples)
    assert task.labels == ("muito bom", "não é mau")
    assert task.counts == (2, 1)
    assert task.summary(examples)["labels"] == {"muito bom": 2, "não é mau": 1}


def test_another_encoding_is_read_when_it_is_named(tmp_path: Path) -> None:
    source = write(tmp_path / "t.csv", "text,label\nação,sã\nmão,vã\n", "latin-1")
    assert labels_of(Classification.read(replace(SPEC, encoding="latin-1"), source)) == [("sã",), ("vã",)]
    with pytest.raises(PalavraError, match=r"^.*t\.csv:2\b[^\n]*$"):
        Classification.read(SPEC, source)


def test_columns_have_the_names_they_are_given(tmp_path: Path) -> None:
    source = write(tmp_path / "t.tsv", "premise\thypothesis\tgold\na b\tc\tyes\nd\te f\tno\n")
    columns = Columns(text_a="premise", text_b="hypothesis", label=("gold",))
    examples = Classification.read(replace(PAIRS, columns=columns), source)
    assert [(one.first, one.second, one.label) for one in examples] == [("a b", "c", ("yes",)), ("d", "e f", ("no",))]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([1, 0, 2.0, True], ["0", "1", "2", "true"]),
        (["10", "9", "-1", "x", "1.5"], ["-1", "1.5", "9", "10", "x"]),
        (["nan", "b", "2", "inf", "a"], ["2", "a", "b", "inf", "nan"]),
        ([2.5, 1], ["1", "2.5"]),
    ],
)
def test_labels_are_texts_in_natural_order(tmp_path: Path, labels: list[Any], expected: list[str]) -> None:
    for order in (labels, labels[::-1]):
        lines = [json.dumps({"text": "x", "label": label}) for label in order]
        examples = Classification.read(SPEC, write(tmp_path / "t.jsonl", "\n".join(lines)))
        assert Classification.fit(SPEC, examples).labels == tuple(expected)


def test_several_labels_come_in_lists_or_parted(tmp_path: Path) -> None:
    lines = [{"text": "x", "label": ["b", "a", "b"]}, {"text": "y", "label": []}, {"text": "z", "label": ["a"]}]
    source = write(tmp_path / "t.jsonl", "\n".join(json.dumps(line) for line in lines))
    task = Classification.fit(SPEC, Classification.read(SPEC, source))
    assert (task.multilabel, task.labels, task.counts) == (True, ("a", "b"), (2, 1))
    table = write(tmp_path / "t.csv", 'text,label\nx,"b, a,b"\ny,\nz,a\n')
    assert labels_of(Classification.read(SEVERAL, table)) == [("b", "a"), (), ("a",)]
    bars = write(tmp_path / "b.csv", "text,label\nx,b | a\ny,a\n")
    assert labels_of(Classification.read(replace(SEVERAL, separator="|"), bars)) == [("b", "a"), ("a",)]
    # Without being asked to, a comma parts nothing.
    assert labels_of(Classification.read(SPEC, write(tmp_path / "c.csv", 'text,label\nx,"b, a"\ny,c\n'))) == [
        ("b, a",),
        ("c",),
    ]


# What people do wrong: each in one line that says where


@pytest.mark.parametrize(
    ("content", "where", "says"),
    [
        ("text,label\ngood,a\n,b\n", "t.csv:3", "text is empty"),
        ('text,label\ngood,a\n"  \n ",b\n', "t.csv:3", "text is empty"),
        ("text,label\ngood,a\nbad,\n", "t.csv:3", "label is '', not a label"),
        ("txt,label\ngood,a\n", "t.csv:2", "no column 'text'"),
        ("text,class\ngood,a\n", "t.csv:2", "no column 'label'"),
        ("text,label\ngood,a\nbad\n", "t.csv:3", "1 field"),
        ("text,label\ngood,a,b\n", "t.csv:2", "3 fields"),
        ("text,label\n", "t.csv", "holds no records"),
        ("", "t.csv", "holds no records"),
    ],
)
def test_a_table_with_a_mistake_names_the_line(tmp_path: Path, content: str, where: str, says: str) -> None:
    source = write(tmp_path / "t.csv", content)
    with pytest.raises(PalavraError) as error:
        Classification.read(SPEC, source)
    assert str(error.value).startswith(f"{tmp_path / where}:")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("label", ["null", '{"a": 1}', '""', '["a", null]', "[[]]"])
def test_what_is_no_label_names_the_line(tmp_path: Path, label: str) -> None:
    source = write(tmp_path / "t.jsonl", f'{{"text": "x", "label": "a"}}\n{{"text": "y", "label": {label}}}\n')
    with pytest.raises(PalavraError, match=r"^[^\n]*t\.jsonl:2: label is [^\n]*$"):
        Classification.read(SPEC, source)


def test_a_text_that_is_none_names_the_line(tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", '{"text": 5, "label": "a"}\n')
    with pytest.raises(PalavraError, match=r"^[^\n]*t\.jsonl:1: text is 5, not text[^\n]*$"):
        Classification.read(SPEC, source)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_label_that_is_not_a_number_names_the_row(tmp_path: Path, value: float | None) -> None:
    pq.write_table(pa.table({"text": ["x", "y"], "label": pa.array([1.0, value])}), tmp_path / "t.parquet")
    with pytest.raises(PalavraError, match=r"^[^\n]*t\.parquet:row 2: label is [^\n]*, not a label[^\n]*$"):
        Classification.read(SPEC, str(tmp_path / "t.parquet"))


@pytest.mark.parametrize("spec", [SPEC, SEVERAL])
def test_one_class_is_an_error(spec: TaskSpec) -> None:
    with pytest.raises(PalavraError, match=r"^train\.csv has only one label, 'a': [^\n]*$"):
        Classification.fit(spec, examples_of(["a", "a"]))
    with pytest.raises(PalavraError, match=r"^train\.csv has no label at all: [^\n]*$"):
        Classification.fit(SEVERAL, [example(0)])


def test_an_unseen_label_names_the_line_and_the_known() -> None:
    task = Classification.fit(SPEC, examples_of(["a", "b"]))
    with pytest.raises(
        PalavraError, match=r"^train\.csv:3: label 'c' was not in training, which has 'a', 'b': [^\n]*$"
    ):
        task.check(examples_of(["a", "c"]))
    many = Classification.fit(SPEC, examples_of([str(n) for n in range(30)]))
    with pytest.raises(PalavraError, match=r"'19' and 10 more: [^\n]*$"):
        many.check(examples_of(["x"]))


def test_several_labels_where_one_is_wanted_name_the_line() -> None:
    with pytest.raises(PalavraError, match=r"^train\.csv:3: 2 labels where one is wanted: [^\n]*$"):
        Classification.fit(replace(SPEC, multilabel=False), examples_of(["a", ("a", "b")]))


def test_what_cannot_be_asked_for_is_an_error() -> None:
    with pytest.raises(PalavraError, match=r"^output hierarchical is for one label an example[^\n]*$"):
        Classification.fit(replace(SEVERAL, output=OutputConfig(name="hierarchical")), examples_of(["a", "b"]))
    with pytest.raises(PalavraError, match=r"^label names 2 columns[^\n]*$"):
        Classification.read(replace(SPEC, columns=Columns(label=("a", "b"))), "t.csv")


@pytest.mark.parametrize("raw", [3, None, ("a", "b"), ["a"] * 3, {"txt": "a"}, {"text": ""}, {"text": 3}, b"a", [3]])
def test_what_is_no_input_is_an_error(raw: Any) -> None:
    task = Classification.fit(SPEC, examples_of(["a", "b"]))
    with pytest.raises(PalavraError, match=r"^input 2: [^\n]*$"):
        task.inputs(["fine", raw])


@pytest.mark.parametrize("raw", ["a", ("a",), 3, {"text_a": "x"}])
def test_what_is_no_pair_is_an_error(raw: Any) -> None:
    task = Classification.fit(PAIRS, examples_of(["a", "b"], pair=True))
    with pytest.raises(PalavraError, match=r"^input 2: [^\n]*$"):
        task.inputs([("a", "b"), raw])


def test_inputs_are_texts_pairs_and_mappings() -> None:
    single = Classification.fit(SPEC, examples_of(["a", "b"]))
    assert [one.first for one in single.inputs(["x", {"text": "y", "more": 1}])] == ["x", "y"]
    pairs = Classification.fit(PAIRS, examples_of(["a", "b"], pair=True))
    found = pairs.inputs([("x", "y"), ["z", "w"], {"text_a": "u", "text_b": "v"}])
    assert [(one.first, one.second) for one in found] == [("x", "y"), ("z", "w"), ("u", "v")]


# The loss, against torch's


def softmax_loss(task: Classification, logits: Tensor, labels: Tensor) -> Tensor:
    """The task's summed loss of given logits (M, K): its layer is the identity."""
    output = task.build_output(logits.shape[1])
    assert isinstance(output, Softmax)
    with torch.no_grad():
        output.linear.weight.copy_(torch.eye(logits.shape[1]))
        output.linear.bias.zero_()
    return task.loss(output, logits, rows_of(labels)).total


def rows_of(labels: Tensor) -> Batch:
    """A batch of which only the labels matter."""
    count = len(labels)
    return Batch(
        input_ids=torch.zeros(count, dtype=torch.int64), position_ids=torch.zeros(count, dtype=torch.int64),
        cu_seqlens=torch.arange(count + 1, dtype=torch.int32), max_seqlen=1, label_rows=torch.arange(count),
        labels=labels, task="task",
    )  # fmt: skip


LABELS = ["a", "b", "a", "c", "a", "b", "a", "c"]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_loss_and_gradient_are_torchs_cross_entropy(smoothing: float, weights: Literal["none", "balanced"]) -> None:
    task = Classification.fit(replace(SPEC, class_weights=weights, label_smoothing=smoothing), examples_of(LABELS))
    logits = torch.randn(8, 3, requires_grad=True)
    labels = torch.tensor([task.labels.index(label) for label in LABELS])
    total = softmax_loss(task, logits, labels)
    balanced = compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())
    given = None if weights == "none" else torch.tensor(balanced, dtype=torch.float32)
    # Over all of training the count is the sum of the weights: this is torch's weighted mean.
    expected = F.cross_entropy(logits, labels, weight=given, label_smoothing=smoothing)
    torch.testing.assert_close(total / 8, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one, logits)[0] for one in (total / 8, expected)))
    parts = sum(softmax_loss(task, logits[i : i + 3], labels[i : i + 3]) for i in (0, 3, 6))
    torch.testing.assert_close(parts, total)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_loss_and_gradient_are_torchs_binary_cross_entropy(
    smoothing: float, weights: Literal["none", "balanced"]
) -> None:
    sets: list[tuple[str, ...]] = [("a",), ("a", "b"), (), ("a", "c"), ("b", "a"), ("a",), ("a", "b", "c"), ("a",)]
    task = Classification.fit(replace(SEVERAL, class_weights=weights, label_smoothing=smoothing), examples_of(sets))
    targets = torch.tensor([[float(label in one) for label in "abc"] for one in sets])
    present = targets.sum(0)
    output = task.build_output(5)
    x = torch.randn(8, 5, requires_grad=True)
    loss = task.loss(output, x, rows_of(targets))
    assert loss.count == 8
    smooth = targets * (1 - smoothing) + smoothing / 2
    given = None if weights == "none" else (8 - present) / present  # absent over present
    expected = F.binary_cross_entropy_with_logits(output(x), smooth, pos_weight=given)
    torch.testing.assert_close(loss.mean, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one, x, retain_graph=True)[0] for one in (loss.mean, expected)))
    parts = sum(task.loss(output, x[i : i + 3], rows_of(targets[i : i + 3])).total for i in (0, 3, 6))
    torch.testing.assert_close(parts, loss.total)


def test_weights_of_several_labels_have_bounds() -> None:
    everywhere = examples_of([("a",)] * 500 + [("a", "b")])
    task = Classification.fit(replace(SEVERAL, class_weights="balanced"), everywhere)
    found = task._class_weights(torch.zeros(1))
    assert found is not None
    assert found.tolist() == pytest.approx([0.01, 100.0])


@settings(max_examples=6)
@given(cuts=st.sets(st.integers(1, 7)), pair=st.booleans())
def test_any_split_of_a_batch_gives_the_same_gradient(tokenizer: Tokenizer, cuts: set[int], pair: bool) -> None:
    spec = replace(PAIRS if pair else SPEC, class_weights="balanced", label_smoothing=0.1)
    task = Classification.fit(spec, examples_of(LABELS, pair=pair))
    model = build(task, tokenizer.vocab_size).double()
    features = task.encode(examples_of(LABELS, pair=pair), tokenizer, 64, True)
    found = []
    for bounds in ([0, 8], [0, *sorted(cuts), 8]):
        model.zero_grad()
        for start, stop in pairwise(bounds):
            loss_of(model, task, batch_of(features, np.arange(start, stop))).total.backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert len(found[0]) > 10
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-6, atol=1e-7)


# From texts to predictions


@pytest.mark.parametrize("kind", ["single", "pairs", "several"])
@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_eight_examples_are_learned_by_heart(tokenizer: Tokenizer, kind: str, family: str) -> None:
    sets: list[Any] = [("a", "b"), (), ("a",), ("b",), ("c",)] if kind == "several" else ["a", "b", "c", "a", "b"]
    spec = {"single": SPEC, "pairs": PAIRS, "several": SEVERAL}[kind]
    examples = examples_of(sets, pair=kind == "pairs")
    task = Classification.fit(spec, examples)
    model = build(task, tokenizer.vocab_size, family)
    features = task.encode(examples, tokenizer, 64, True)
    assert overfit(model, task, features, 120) < 0.1
    found = inferred(model, task, batch_of(features))
    predictions = task.predict(examples, features, found)
    if kind == "several":
        assert [sorted(one["label"]) for one in predictions] == [sorted(one) for one in sets]
    else:
        assert [one["label"] for one in predictions] == sets
        assert all(one["probability"] > 0.7 for one in predictions)
    scores = task.score(examples, features, found)
    assert scores.values[scores.main] == 1.0


def test_targets_go_with_their_windows(tokenizer: Tokenizer) -> None:
    examples = [replace(example(0, "a"), first=" ".join(TEXTS * 3)), example(1, "b")]
    task = Classification.fit(SPEC, examples)
    features = task.encode(examples, tokenizer, 12, False, split=True)
    assert features.labels.tolist() == [0] * (features.sequences - 1) + [1]
    assert features.sequences > 3


def parts_of(features: Features, sep: int) -> list[tuple[int, list[int], list[int]]]:
    """Example, first text and second text of each sequence."""
    found = []
    for number, ids in zip(features.example.tolist(), np.split(features.input_ids, np.cumsum(features.lengths)[:-1]),
                           strict=True):  # fmt: skip
        tokens = ids.tolist()
        middle = tokens.index(sep)
        found.append((number, tokens[1:middle], tokens[middle + 1 : -1]))
    return found


@settings(max_examples=60)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=5),
    context=st.integers(4, 40),
)
def test_of_a_pair_the_longer_text_is_read_in_windows(
    tokenizer: Tokenizer, sizes: list[tuple[int, int]], context: int
) -> None:
    words = " ".join(TEXTS * 4).split()
    examples = [
        TextExample(first=" ".join(words[:a]), second=" ".join(words[-b:]), label=("a",), where="") for a, b in sizes
    ]
    features = encode_texts(examples, tokenizer, context, True, True)
    assert features.lengths.max() <= context
    assert features.cut is not None
    found = parts_of(features, tokenizer.sep_id)
    room = context - 3
    for number, example in enumerate(examples):
        texts = [tokenizer.encode(text or "") for text in (example.first, example.second)]
        windows = [pair for owner, *pair in found if owner == number]
        longer = int(len(texts[1]) > len(texts[0]))
        whole, other = texts[longer], texts[1 - longer]
        kept = {tuple(pair[1 - longer]) for pair in windows}
        assert kept == {tuple(other[: len(windows[0][1 - longer])])}
        if len(whole) + len(other) <= room:
            assert windows == [texts]
        assert features.cut[number] == (len(next(iter(kept))) < len(other))
        if features.cut[number]:
            assert len(other) > room - max(1, room // 4)
        # The windows cover the longer text, in order.
        covered, stop = 0, 0
        for pair in windows:
            own = pair[longer]
            start = next(s for s in range(stop, -1, -1) if whole[s : s + len(own)] == own and s + len(own) > covered)
            covered = stop = max(covered, start + len(own))
        assert covered == len(whole)


def test_a_long_pair_is_classified_by_all_of_it(tokenizer: Tokenizer) -> None:
    pair = example(0, "a", pair=True)
    long = replace(pair, second=" ".join(TEXTS * 3))
    task = Classification.fit(PAIRS, [pair, example(1, "b", pair=True)])
    cut = task.encode([long, pair], tokenizer, 40, True)
    assert (cut.sequences, cut.truncated) == (2, 1)
    split = task.encode([long, pair], tokenizer, 40, True, split=True)
    assert split.sequences > 4
    assert split.truncated == 0
    assert split.segment_ids is not None
    assert split.labels.tolist() == [0] * split.sequences
    p = np.stack([np.linspace(0.2, 0.9, split.sequences)] * 2, 1)
    p[:, 1] = 1 - p[:, 0]
    found = task.probabilities([long, pair], split, with_log_p(p))
    np.testing.assert_allclose(found, [p[:-1].mean(0), p[-1]], rtol=1e-5)


def with_log_p(probabilities: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float32], ...]:
    return (np.log(probabilities).astype(np.float32),)


def test_windows_probabilities_are_averaged(tokenizer: Tokenizer) -> None:
    examples = [replace(example(0, "a"), first=" ".join(TEXTS)), example(4, "b")]
    task = Classification.fit(SPEC, examples)
    features = task.encode(examples, tokenizer, 20, False, split=True)
    windows = features.sequences - 1
    first = np.linspace(0.2, 0.9, windows)
    probabilities = np.stack([np.append(first, 0.3), np.append(1 - first, 0.7)], 1)
    found = task.probabilities(examples, features, with_log_p(probabilities))
    np.testing.assert_allclose(found, [[0.55, 0.45], [0.3, 0.7]], rtol=1e-5)


def test_predictions_are_the_best_first_and_probabilities_sum_to_one(tokenizer: Tokenizer) -> None:
    labels = [str(n) for n in range(8)]
    examples = examples_of(labels)
    task = Classification.fit(SPEC, examples)
    features = task.encode(examples, tokenizer, 32, False)
    p = np.random.default_rng(0).dirichlet(np.ones(8), size=8)
    for row, prediction in zip(p, task.predict(examples, features, with_log_p(p)), strict=True):
        order = np.argsort(-row)[:5]
        assert [one["label"] for one in prediction["best"]] == [str(i) for i in order]
        assert prediction["label"] == str(order[0])
        assert prediction["probability"] == pytest.approx(row.max(), abs=1e-6)
    np.testing.assert_allclose(task.probabilities(examples, features, with_log_p(p)).sum(1), 1, rtol=1e-5)


@pytest.mark.parametrize("classes", [2, 5, 6, 40])
def test_of_equally_probable_classes_the_one_that_is_scored_is_given(tokenizer: Tokenizer, classes: int) -> None:
    random = np.random.default_rng(0)
    labels = [str(n) for n in range(classes)]
    task = Classification.fit(SPEC, examples_of(labels))
    examples = examples_of(["0"] * 50)
    features = task.encode(examples, tokenizer, 32, False)
    p = random.integers(1, 3, size=(50, classes)).astype(np.float64)  # many equal ones, more than are listed
    found = task.predict(examples, features, with_log_p(p / p.sum(1, keepdims=True)))
    assert [int(one["label"]) for one in found] == p.argmax(1).tolist()
    for one in found:
        assert len({row["label"] for row in one["best"]}) == len(one["best"]) == min(5, classes)
        shown = [row["probability"] for row in one["best"]]
        assert shown == sorted(shown, reverse=True)


def test_scores_are_scikit_learns(tokenizer: Tokenizer) -> None:
    labels = [*"abca", *"bbcaabcc"]
    examples = examples_of(labels)
    task = Classification.fit(SPEC, examples)
    features = task.encode(examples, tokenizer, 32, False)
    p = np.random.default_rng(1).dirichlet(np.ones(3), size=12)
    scores = task.score(examples, features, with_log_p(p))
    chosen = ["abc"[i] for i in p.argmax(1)]
    assert scores.main == "accuracy"
    assert scores.values["accuracy"] == pytest.approx(accuracy_score(labels, chosen))
    assert scores.values["macro_f1"] == pytest.approx(f1_score(labels, chosen, average="macro"))
    assert with_intervals(scores) == set(task.metrics) - {"calibration_error"}
    assert set(task.metrics) >= {"accuracy", "macro_f1", "loss"}
    assert set(task.metrics) <= set(scores.values)
    errors = scores.details["errors"]
    assert len(errors) == sum(a != b for a, b in zip(labels, chosen, strict=True))
    sure = [one["probability"] for one in errors]
    assert sure == sorted(sure, reverse=True)
    assert all(one["label"] != one["predicted"] for one in errors)
    json.dumps(dict(scores.details), allow_nan=False)


def test_one_class_among_test_examples_has_scores(tokenizer: Tokenizer) -> None:
    task = Classification.fit(SPEC, examples_of(["a", "b"]))
    examples = examples_of(["a", "a"])
    features = task.encode(examples, tokenizer, 32, False)
    scores = task.score(examples, features, with_log_p(np.array([[0.9, 0.1], [0.2, 0.8]])))
    assert scores.values["accuracy"] == 0.5
    assert "auroc" not in scores.values
    # Of one class found and missed there is no Matthews correlation: it is 0 on every resample.
    assert with_intervals(scores) == {"accuracy", "macro_f1", "weighted_f1", "loss"}
    assert len(scores.statistics()) == 2  # nothing is sorted for an area that is not there
    alone = task.score(
        examples[:1], task.encode(examples[:1], tokenizer, 32, False), with_log_p(np.array([[0.9, 0.1]]))
    )
    assert alone.intervals == {}


def test_scores_of_label_sets_have_intervals(tokenizer: Tokenizer) -> None:
    examples = examples_of([("a",), ("a", "b"), (), ("b", "c"), ("c",), ("a", "c")] * 3)
    task = Classification.fit(SEVERAL, examples)
    features = task.encode(examples, tokenizer, 32, False)
    logits = np.random.default_rng(0).normal(size=(18, 3)).astype(np.float32)
    scores = task.score(examples, features, (logits,))
    assert with_intervals(scores) == set(scores.values)
    assert {"micro_f1", "macro_f1", "subset_accuracy", "auroc", "loss"} <= set(scores.values)
    without_c = [replace(one, label=tuple(label for label in one.label if label != "c")) for one in examples]
    scores = task.score(without_c, task.encode(without_c, tokenizer, 32, False), (logits,))
    assert "auroc" not in scores.values
    assert len(scores.statistics()) == 2


def test_many_labels_have_the_area_of_sets_with_its_interval_and_none_of_classes(tokenizer: Tokenizer) -> None:
    labels = [f"label {n:03}" for n in range(201)]
    sets = [tuple(labels[n % 3 :: 3]) for n in range(30)]
    task = Classification.fit(SEVERAL, examples_of(sets))
    examples = examples_of(sets)
    logits = np.random.default_rng(0).normal(size=(30, 201)).astype(np.float32)
    scores = task.score(examples, task.encode(examples, tokenizer, 32, False), (logits,))
    assert {"auroc"} <= with_intervals(scores) & set(task.metrics) & set(scores.values)
    examples = examples_of(labels)
    task = Classification.fit(SPEC, examples)
    p = np.random.default_rng(0).dirichlet(np.ones(201), size=201)
    scores = task.score(examples, task.encode(examples, tokenizer, 32, False), with_log_p(p))
    assert "auroc" not in set(task.metrics) | set(scores.values)
    assert "auroc" in Classification.fit(SPEC, examples_of(labels[:200])).metrics


def test_the_right_one_among_five_has_an_interval(tokenizer: Tokenizer) -> None:
    examples = examples_of([*"abcdef"] * 5)
    task = Classification.fit(SPEC, examples)
    p = np.random.default_rng(0).dirichlet(np.ones(6), size=30)
    scores = task.score(examples, task.encode(examples, tokenizer, 32, False), with_log_p(p))
    assert 0 < scores.values["accuracy_at_5"] < 1
    assert with_intervals(scores) == set(scores.values) - {"calibration_error"}


def test_a_temperature_makes_probabilities_softer_and_keeps_the_order(tokenizer: Tokenizer) -> None:
    examples = examples_of(["a", "b", "b", "a"])
    task = Classification.fit(replace(SPEC, temperature=True), examples)
    features = task.encode(examples, tokenizer, 32, False)
    # Sure of itself, and right half of the time.
    log_p = with_log_p(np.array([[0.999, 0.001], [0.999, 0.001], [0.001, 0.999], [0.001, 0.999]]))
    softer, _ = task.calibrate(examples, features, log_p)
    assert softer.temperature > 2
    assert Classification.fit(SPEC, examples).calibrate(examples, features, log_p)[0].temperature == 1
    again = Classification.from_json(softer.spec, json.loads(json.dumps(softer.labels_to_json())))
    assert again.temperature == softer.temperature
    found = again.predict(examples, features, log_p)
    assert all(0.5 <= one["probability"] < 0.9 for one in found)
    assert [one["label"] for one in found] == ["a", "a", "b", "b"]


def test_a_temperature_is_scored_on_examples_it_was_not_fitted_on(tokenizer: Tokenizer) -> None:
    random = np.random.default_rng(0)
    labels = ["abc"[i] for i in random.integers(3, size=30)]
    examples = examples_of(labels)
    task = Classification.fit(replace(SPEC, temperature=True), examples)
    features = task.encode(examples, tokenizer, 32, False)
    log_p = with_log_p(random.dirichlet(np.full(3, 0.1), size=30) + 1e-6)
    fitted, found = task.calibrate(examples, features, log_p)
    told = found.details["fitted"]
    assert (told["name"], told["value"], told["scored"]) == ("temperature", fitted.temperature, "cross-fitted")
    second = halves(labels)
    losses = []
    for own, temperature in ((~second, told["halves"][1]), (second, told["halves"][0])):
        other = [examples[i] for i in np.flatnonzero(~own)]
        theirs, _ = task.calibrate(other, task.encode(other, tokenizer, 32, False), (log_p[0][~own],))
        assert theirs.temperature == temperature
        here = [examples[i] for i in np.flatnonzero(own)]
        losses.append(theirs.score(here, task.encode(here, tokenizer, 32, False), (log_p[0][own],)).values["loss"])
    assert found.values["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found.values["accuracy"] == fitted.score(examples, features, log_p).values["accuracy"]
    # What was fitted on the examples has the least loss there is, and so less than is honest.
    assert fitted.score(examples, features, log_p).values["loss"] < found.values["loss"]
    few = task.encode(examples[:9], tokenizer, 32, False)
    told = task.calibrate(examples[:9], few, (log_p[0][:9],))[1].details["fitted"]
    assert (told["scored"], told["halves"]) == ("fitted-on", [])
    assert "fitted" not in Classification.fit(SPEC, examples).calibrate(examples, features, log_p)[1].details


@pytest.mark.parametrize("spec", [SPEC, SEVERAL])
def test_labels_survive_json(spec: TaskSpec) -> None:
    task = Classification.fit(spec, examples_of(["é muito", "b", "b"]))
    again = Classification.from_json(task.spec, json.loads(json.dumps(task.labels_to_json())))
    assert (again.labels, again.counts, again.examples) == (("b", "é muito"), (2, 1), 3)
    with pytest.raises(ValueError, match="counts"):
        Classification.from_json(task.spec, {"labels": ["a", "b"], "counts": [1]})


@pytest.mark.parametrize("output", ["hierarchical", "sampled", "softmax"])
def test_each_output_layer_learns_and_gives_probabilities(tokenizer: Tokenizer, output: Any) -> None:
    spec = replace(SPEC, output=OutputConfig(name=output, samples=2), head=HeadConfig(pooling="mean"))
    examples = examples_of(["a", "b", "c", "d", "e"])
    task = Classification.fit(spec, examples)
    model = build(task, tokenizer.vocab_size)
    features = task.encode(examples, tokenizer, 32, True)
    overfit(model, task, features, 120)
    (log_p,) = inferred(model, task, batch_of(features))
    np.testing.assert_allclose(np.exp(log_p).sum(1), 1, rtol=1e-4)
    assert [one["label"] for one in task.predict(examples, features, (log_p,))] == list("abcde")


def test_a_field_of_another_kind_is_refused() -> None:
    check_fields(TaskSpec(kind="pairs", label_smoothing=0.1, temperature=True))
    for spec in (
        TaskSpec(kind="regression", temperature=True),
        TaskSpec(kind="qa", head=HeadConfig(pooling="mean")),
        TaskSpec(kind="choice", long="split"),
        TaskSpec(kind="classification", labelling=LabellingOptions(scheme="bio")),
        TaskSpec(kind="regression", columns=Columns(answers="a")),
        TaskSpec(kind="labelling", separator=";"),
    ):
        with pytest.raises(PalavraError, match=f"means nothing for {spec.kind}") as caught:
            check_fields(spec)
        assert "\n" not in str(caught.value)
