"""Token classification: labels and their schemes, batches, learning, storage."""

import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.models import layout_of, scramble
from builders.tasks import (
    batch_of,
    build,
    fit,
    from_json,
    inferred,
    loss_of,
    overfit,
    predict,
    read,
    score,
    words_of,
)
from builders.token_classification import (
    ALL,
    BIO,
    BPE,
    EXAMPLES,
    SPEC,
    WORDPIECE,
    tagged,
    task_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from palavra.errors import PalavraError
from palavra.finetuning.run_info import summary_lines
from palavra.metrics.tag_schemes import Scheme, Span, encode_tags
from palavra.model.config import OutputConfig, OutputName
from palavra.model.task_outputs.layers import Softmax
from palavra.tasks.spec import Columns, TaskSpec, TokenClassificationOptions
from palavra.tasks.token_classification.examples import read_sentences

# Labels


def test_labels_of_a_scheme_are_completed_and_o_is_first() -> None:
    task = fit(SPEC, [tagged("a b", "B-Z B-A"), tagged("c", "O")])
    assert task.output.labels == ("O", "B-A", "I-A", "B-Z", "I-Z")
    assert task.output.counts == (1, 1, 0, 1, 0)
    assert task.output.scheme == "bio"
    assert fit(SPEC, [tagged("a b", "B I")]).output.labels == ("O", "B", "I")
    bioes = fit(SPEC, [tagged("a b", "S-A O")])
    assert bioes.output.labels == ("O", "B-A", "I-A", "E-A", "S-A")
    parts = fit(SPEC, [tagged("a b c", "VERB NOUN O")])
    assert (parts.output.labels, parts.output.scheme) == (("NOUN", "O", "VERB"), "plain")


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
def test_any_scheme_is_read_and_one_is_written(scheme: Any) -> None:
    spec = replace(SPEC, token_classification=TokenClassificationOptions(scheme=scheme))
    spans = [Span(0, 2, "PER"), Span(2, 3, "PER"), Span(4, 7, "LOC")]
    text = "a b c d e f g"
    written: tuple[Scheme, ...] = ("bio", "iob1", "bioes")
    examples = [tagged(text, " ".join(encode_tags(spans, 7, each))) for each in written]
    task = fit(spec, examples)
    assert task.output.scheme == scheme
    task.encoder.check(examples)
    features = task.encoder.encode(examples, BPE, 64, False)
    expected = encode_tags(spans, 7, scheme) * 3
    assert [task.output.labels[number] for number in features.labels] == expected
    assert dict(zip(task.output.labels, task.output.counts, strict=True))["B-LOC"] == 3
    assert task.encoder.summary(examples)["spans"] == {"PER": 6, "LOC": 3}
    assert task.encoder.summary(examples)["tags_rewritten"] == 2


def test_all_subwords_carry_the_label_of_their_word() -> None:
    task = task_of(ALL)
    example = tagged("filmgato moviesgato", "O B-LOC")
    features = task.encoder.encode([example], WORDPIECE, 64, False)
    counts = [len(WORDPIECE.encode(word)) for word in example.words]
    assert min(counts) > 1
    assert features.labels.tolist() == [0] * counts[0] + [1] * counts[1]
    assert features.label_counts.tolist() == features.row_counts.tolist() == [sum(counts)]


def test_reading_columns_by_number_and_name(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    file.write_text("NNP EU ORG x\nVBZ rejects O x\n\nNNP Porto LOC x\n")
    spec = replace(SPEC, columns=Columns(words="1", label=("-2",)))
    examples = read(spec, str(file))
    assert [(one.words, one.labels) for one in examples] == [(("EU", "rejects"), ("ORG", "O")), (("Porto",), ("LOC",))]
    assert examples[1].where == f"{file}:4"
    table = tmp_path / "b.tsv"
    table.write_text("tag\tform\nNOUN\tgato\n")
    assert read(replace(SPEC, columns=Columns(words="form", label=("tag",))), str(table))[0].words == ("gato",)


@pytest.mark.parametrize("label", ["B-ORG", "NOUN", "O-X"])
def test_an_unseen_label_names_file_line_and_word(tmp_path: Path, label: str) -> None:
    file = tmp_path / "test.conll"
    file.write_text(f"Ana B-PER\n\nRui B-PER\nviu {label}\n")
    task = fit(SPEC, EXAMPLES)
    with pytest.raises(PalavraError, match=rf"^\S*test\.conll:3: word 2, 'viu', has the label '{label}'[^\n]*$"):
        task.encoder.check(read(SPEC, str(file)))
    plain = task_of(labels=("NOUN", "VERB"), scheme="plain")
    with pytest.raises(PalavraError, match="word 2, 'x', has the label 'B-PER'"):
        plain.encoder.check([tagged("a x", "NOUN B-PER")])


def test_a_longer_span_of_a_known_type_is_no_unseen_label() -> None:
    task = fit(SPEC, [tagged("Porto e Rui", "B-LOC O B-PER")])
    task.encoder.check([tagged("Rio de Janeiro", "B-LOC I-LOC I-LOC"), tagged("Rio de Janeiro", "B-LOC I-LOC E-LOC")])


@pytest.mark.parametrize(
    ("labels", "message"), [("O O", "only one label, 'O'"), ("NOUN NOUN", "only one label, 'NOUN'")]
)
def test_nothing_to_learn_is_an_error(labels: str, message: str) -> None:
    with pytest.raises(PalavraError, match=f"the training data has {message}"):
        fit(SPEC, [tagged("a b", labels)])


def test_tags_that_no_scheme_has_name_their_place() -> None:
    with pytest.raises(PalavraError, match=r"^my\.conll: the tags are those of BILOU"):
        fit(replace(SPEC, train="my.conll"), [tagged("a b c", "B-A L-A O")])
    spec = replace(SPEC, token_classification=TokenClassificationOptions(scheme="bio"))
    with pytest.raises(PalavraError, match=r"^a\.conll:7: the tag 'NOUN'"):
        fit(spec, [tagged("a b", "B-A NOUN", "a.conll:7")])


# Learning


@pytest.mark.parametrize("family", ["bert", "modernbert"])
@pytest.mark.parametrize("spec", [SPEC, ALL], ids=["first", "all"])
@settings(max_examples=15)
@given(order=st.permutations(range(10)))
def test_a_packed_batch_gives_each_sentence_what_it_has_alone(family: str, spec: TaskSpec, order: list[int]) -> None:
    task = task_of(spec)
    features = task.encoder.encode([*EXAMPLES, tagged("gato " * 14 + "o", "O " * 14 + "O")], WORDPIECE, 14, True)
    assert features.sequences == 10
    model = build(task, WORDPIECE.vocab_size, family)
    scramble(model)
    packed = inferred(model, task, batch_of(features, np.array(order)))[0]
    alone = np.concatenate([inferred(model, task, batch_of(features, np.array([number])))[0] for number in order])
    np.testing.assert_allclose(packed, alone, atol=2e-5, rtol=1e-5)
    assert packed.dtype == np.float32


def test_labels_survive_the_way_into_a_batch() -> None:
    task = fit(SPEC, EXAMPLES)
    features = task.encoder.encode(EXAMPLES, WORDPIECE, 7, False)
    assert features.sequences > len(EXAMPLES)
    batch = features.batch(np.arange(features.sequences)[::-1].copy(), "task")
    by_token = dict(zip(batch.label_rows.tolist(), batch.labels.tolist(), strict=True))
    assert len(by_token) == sum(len(example.words) for example in EXAMPLES)
    rui = WORDPIECE.encode("Rui")
    (b_per,) = {label for row, label in by_token.items() if batch.input_ids[row : row + len(rui)].tolist() == rui}
    assert task.output.labels[b_per] == "B-PER"


@pytest.mark.parametrize("name", ["softmax", "hierarchical", "sampled"])
@pytest.mark.parametrize("spec", [SPEC, ALL], ids=["first", "all"])
def test_eight_sentences_are_learned_by_heart(name: OutputName, spec: TaskSpec) -> None:
    spec = replace(spec, output=OutputConfig(name=name, samples=4))
    task = fit(spec, EXAMPLES)
    features = task.encoder.encode(EXAMPLES, WORDPIECE, 24, False)
    model = build(task, WORDPIECE.vocab_size, seed=1).train()
    overfit(model, task, features, steps=60)
    found = inferred(model.eval(), task, batch_of(features))
    scores = score(task, EXAMPLES, features, found)
    assert scores.values["f1"] == 1.0
    assert scores.values["loss"] < 0.3
    assert [tuple(one["labels"]) for one in predict(task, EXAMPLES, features, found)] == [e.labels for e in EXAMPLES]


def test_the_loss_is_torchs_for_rows_with_weights_and_smoothing() -> None:
    spec = replace(SPEC, class_weights="balanced", label_smoothing=0.1)
    task = fit(spec, EXAMPLES)
    features = task.encoder.encode(EXAMPLES, BPE, 64, False)
    model, batch = build(task, BPE.vocab_size), batch_of(features)
    output = model.head("task").output
    loss = loss_of(model, task, batch)
    assert loss.count == len(features.rows)
    assert isinstance(output, Softmax)
    logits = output.linear(model(batch, layout_of(batch)))
    each = cross_entropy(logits, batch.labels, label_smoothing=0.1, reduction="none")
    weights = 1 / torch.tensor(task.output.counts, dtype=torch.float32)[batch.labels]
    torch.testing.assert_close(loss.mean, (each * weights).sum() / weights.sum())


def test_a_text_without_words_has_no_rows() -> None:
    task = task_of()
    examples = task.reader.inputs(["", " \t"])
    features = task.encoder.encode(examples, BPE, 64, False)
    assert features.lengths.tolist() == [2, 2]
    found = inferred(build(task, BPE.vocab_size), task, batch_of(features))
    assert found[0].shape == (0, 5)
    assert [one["spans"] for one in predict(task, examples, features, found)] == [[], []]


# Storage


def test_labels_come_back_from_json() -> None:
    task = fit(SPEC, EXAMPLES)
    again = from_json(SPEC, task.output.to_json())
    assert (again.output.labels, again.output.counts, again.output.scheme) == (
        task.output.labels,
        task.output.counts,
        "bio",
    )
    values = task.output.config_values()
    assert values["id2label"]["0"] == "O"
    assert values["label2id"] == {label: number for number, label in enumerate(task.output.labels)}
    for damaged in ({"labels": ["a"], "counts": []}, {"labels": ["a", "b"], "counts": [1, 1], "scheme": "x"}):
        with pytest.raises(PalavraError, match="damaged"):
            from_json(SPEC, damaged)


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [(BIO, "bio"), (("B-LOC", "I-LOC", "I-PER", "O"), "iob1"), (("NOUN", "VERB"), "plain"), (("O", "S-A"), "bioes")],
)
def test_the_scheme_of_a_model_from_elsewhere_is_found(labels: tuple[str, ...], scheme: Scheme) -> None:
    task = from_json(SPEC, {"labels": list(labels), "counts": [1] * len(labels)})
    assert (task.output.labels, task.output.scheme) == (labels, scheme)
    with pytest.raises(PalavraError, match="was not in training"):
        task.encoder.check([tagged("a", "B-NEW")])
    if scheme == "iob1":
        task.encoder.check([tagged("a b", "B-PER I-PER")])
        with pytest.raises(PalavraError, match="word 2, 'b', has the label 'B-PER'"):
            task.encoder.check([tagged("a b", "B-PER B-PER")])


def test_one_label_that_spells_no_span_does_not_make_words_of_all() -> None:
    examples = [tagged("a b c", "B-PER I-PER O"), tagged("d e f", "O PER B-LOC"), tagged("g", "B-LOC")]
    said = r"word 2, 'e', has the label 'PER', where most others are span tags \(B-, I-\): correct it, or give scheme="
    with pytest.raises(PalavraError, match=said):
        fit(SPEC, examples)
    plain = replace(SPEC, token_classification=replace(SPEC.token_classification, scheme="plain"))
    assert fit(plain, examples).output.scheme == "plain"
    words = [tagged("a b c", "NOUN B-side O"), tagged("d e", "VERB NOUN")]
    assert fit(SPEC, words).output.scheme == "plain"


def test_the_scheme_and_the_spans_are_told() -> None:
    task = fit(SPEC, EXAMPLES)
    (line,) = [line for line in summary_lines(task.encoder.summary(EXAMPLES)) if line.startswith("spans")]
    assert line.startswith(f"spans, written as {task.output.scheme}: ")


def test_an_accent_written_apart_makes_no_other_tag(tmp_path: Path) -> None:
    apart, whole = (unicodedata.normalize(form, "B-ORGANIZAÇÃO") for form in ("NFD", "NFC"))
    (tmp_path / "t.conll").write_text(f"a {apart}\nb O\n\nc {whole}\n", encoding="utf-8")
    task = fit(SPEC, read_sentences(SPEC, str(tmp_path / "t.conll")))
    assert task.output.labels == ("O", whole, whole.replace("B-", "I-"))
    foreign = words_of(SPEC, ("O", apart), [1, 1], "bio")
    foreign.encoder.check(read_sentences(SPEC, str(tmp_path / "t.conll")))
