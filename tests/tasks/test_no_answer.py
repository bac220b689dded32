"""Question answering: when no answer is given."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from builders.models import scramble
from builders.question_answering import QUESTIONS, WORDPIECE, encode, random_scores, refusing_scores, spec
from builders.tasks import answers_of, calibrated, evaluate, from_json, predict, score, with_intervals

from palavra.api.evaluate import evaluate_task
from palavra.errors import PalavraError
from palavra.inference.finetuned import FineTunedModel
from palavra.metrics.calibration import halves
from palavra.tasks.encoded_examples import offsets_of
from palavra.tasks.question_answering.output import AnswerOutput


def test_no_answer_is_given_above_the_threshold_only() -> None:
    encoded = encode(QUESTIONS, 40, stride=6)
    scores = np.zeros((len(encoded.rows), 2), dtype=np.float32)
    first = offsets_of(encoded.row_counts)[:-1]
    scores[first] = [2.0, 3.0]
    least = int(np.flatnonzero(encoded.example == 0)[-1])
    scores[first[least]] = [0.5, 0.25]  # one window of question 0 doubts that there is none
    found = answers_of(spec(), True).output.decode(QUESTIONS, encoded, (scores,)).found
    assert found[0].no_answer == found[0].no_answer_margin == 0.75
    assert found[1].no_answer == found[1].no_answer_margin == 5.0

    def answers(task: Any) -> list[bool]:
        made = predict(task, QUESTIONS, encoded, (scores,))
        for one in made:
            assert ("no_answer_probability" in one) == math.isfinite(task.output.limit)
            if one["answer"] == "":
                assert one["start"] is one["end"] is None
                assert one["probability"] == one["no_answer_probability"]
        return [one["answer"] != "" for one in made]

    none, some = [False] * 8, [True] + [False] * 7
    assert answers(answers_of(spec(), True)) == none
    assert answers(answers_of(spec(), True, 0.75)) == some
    assert answers(answers_of(spec(threshold=0.7), True, 9.0)) == none  # what the specification says goes first
    assert answers(answers_of(spec(threshold=5.0), False)) == [True] * 8
    assert answers(answers_of(spec(), False)) == [True] * 8
    assert list(predict(answers_of(spec(), True), QUESTIONS, encoded, (scores,))[1]["best"][0]) == [
        "answer", "probability", "start", "end",
    ]  # fmt: skip


def test_the_threshold_is_fitted_where_both_sorts_are() -> None:
    task = answers_of(spec(), True)
    questions = [*QUESTIONS, *[replace(QUESTIONS[7], context=f"{QUESTIONS[7].context} {n}") for n in range(7)]]
    encoded = encode(questions)
    (scores,) = random_scores(encoded, 0)
    scores[:] = 0
    first = offsets_of(encoded.row_counts)[:-1]
    for window in range(7):
        scores[first[window] + encoded.labels[window], [0, 1]] = 5
        scores[first[window]] = 6  # too sure that there is none: 12 against 10
    scores[first[7:]] = 8
    before = score(task, questions, encoded, (scores,))
    assert before.values["has_answer_f1"] == 0
    assert before.values["no_answer_f1"] == 1
    assert before.values["best_f1"] == 1
    assert before.values["f1"] == 8 / 15
    fitted, _ = calibrated(task, questions, encoded, (scores,))
    # Between those to answer and those to refuse, neither at one of them.
    assert before.details["best_f1"]["value"] == 2.0
    assert 4 < fitted.output.threshold < 14
    assert not any("threshold" in name for name in before.values)  # logits are no scores
    after = score(fitted, questions, encoded, (scores,))
    assert after.values["f1"] == after.values["exact"] == 1
    sorts = {f"{sort}_{name}" for sort in ("has_answer", "no_answer") for name in ("f1", "exact")}
    assert with_intervals(before) == {"f1", "exact", "loss"}  # of both sorts of questions, all are alike
    assert set(after.values) == {"f1", "exact", "calibration_error", "loss", "best_f1", "best_exact"} | sorts
    assert (after.details["articles"], after.details["threshold"]) == ("en", fitted.output.threshold)
    only = QUESTIONS[:7]
    assert calibrated(task, only, encode(only), (scores[: first[7]],))[0].output is task.output
    plain = answers_of(spec(), False)
    assert set(score(plain, only, encode(only), (scores[: first[7]],)).values) == set(plain.scorer.metrics) - set(
        plain.scorer.undefined(only)
    )


def test_the_threshold_is_scored_on_questions_it_was_not_fitted_on() -> None:
    questions = [
        replace(QUESTIONS[number], context=f"{QUESTIONS[number].context} {n}") for n in range(20) for number in (0, 7)
    ]
    encoded = encode(questions)
    scores = refusing_scores(encoded, 3)
    task, found = calibrated(answers_of(spec(), True), questions, encoded, scores)
    assert task.output.threshold is not None
    (told,) = found.details["fitted"]
    assert (told["name"], told["value"], told["scored"]) == ("threshold", task.output.threshold, "cross-fitted")
    # Questions on one passage are in one half.
    passages = {text: number for number, text in enumerate(dict.fromkeys(one.context for one in questions))}
    second = halves([""] * len(passages))[[passages[one.context] for one in questions]]
    expected, bounds = [], offsets_of(encoded.row_counts)
    for half, threshold in ((~second, told["halves"][1]), (second, told["halves"][0])):
        own, others = np.flatnonzero(half), np.flatnonzero(~half)
        parts = {}
        for name, numbers in (("own", own), ("others", others)):
            chosen = [questions[i] for i in numbers]
            rows = np.concatenate([np.arange(bounds[i], bounds[i + 1]) for i in numbers])
            parts[name] = (chosen, encode(chosen), (scores[0][rows],))
        fitted, _ = calibrated(answers_of(spec(), True), *parts["others"])
        assert fitted.output.threshold == threshold
        expected.append(score(fitted, *parts["own"]).values["f1"])
    assert found.values["f1"] == pytest.approx(np.mean(expected))
    assert found.values["f1"] <= score(task, questions, encoded, scores).values["f1"]
    few = QUESTIONS[:1] + QUESTIONS[7:]
    encoded = encode(few)
    kept, found = calibrated(answers_of(spec(), True), few, encoded, random_scores(encoded, 0))
    assert kept.output.threshold is None
    assert (kept.fitted[0]["scored"], kept.fitted[0]["value"]) == ("not-fitted", 0.0)
    assert found.details["warnings"] == [
        "the no-answer threshold stays 0: 1 questions with an answer and 1 without are too few to fit it, 5 of each "
        "are needed"
    ]
    given = answers_of(spec(threshold=1.0), True)
    assert "fitted" not in calibrated(given, few, encoded, random_scores(encoded, 0))[1].details


@pytest.mark.parametrize("threshold", [math.inf, -math.inf, math.nan])
def test_a_threshold_is_a_finite_number(threshold: float) -> None:
    with pytest.raises(
        PalavraError, match=r"^question_answering.threshold is -?(inf|nan): give a finite number of logits, 0 for .*"
    ):
        spec(threshold=threshold)
    with pytest.raises(PalavraError, match=r"threshold .* not a truth value and a number"):
        from_json(spec(), {"unanswerable": True, "threshold": threshold})


def test_a_model_from_elsewhere_refuses_when_asked(tmp_path: Path) -> None:
    config = transformers.BertConfig(
        vocab_size=WORDPIECE.vocab_size, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=64,
    )  # fmt: skip
    theirs: Any = transformers.BertForQuestionAnswering(config)
    scramble(theirs)
    theirs.save_pretrained(tmp_path)
    WORDPIECE.save(tmp_path, context=64, segments=True)
    plain = FineTunedModel.load(tmp_path)
    asked = [{"question": one.question, "context": one.context} for one in QUESTIONS]
    assert all(one["answer"] and "no_answer_probability" not in one for one in plain.predict(asked).to_json())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AnswerOutput, "predictions", None)  # scores alone need none
        before = plain.score(QUESTIONS)
    assert before.values["no_answer_f1"] == 0
    assert {"has_answer_f1", "best_f1"} <= set(before.values)
    assert "threshold" not in before.details
    silent = plain.predict(asked, threshold=-1e9)
    assert all(one["answer"] == "" for one in silent)
    no_answer_margin = np.array(
        [math.log(one["no_answer_probability"] / one["best"][0]["probability"]) for one in silent]
    )
    for threshold in (0.0, float(np.median(no_answer_margin))):
        made = plain.predict(asked, threshold=threshold)
        assert [one["answer"] == "" for one in made] == (no_answer_margin > threshold).tolist()
        after, _ = plain.evaluate(QUESTIONS, threshold=threshold)
        assert (after.details["threshold"], after.details["articles"]) == (threshold, "en")
        assert after.values["best_f1"] == before.values["best_f1"]
    assert {one["answer"] == "" for one in made} == {True, False}
    assert plain.evaluate(QUESTIONS, articles="pt")[0].details["articles"] == "pt"
    file = tmp_path / "q.jsonl"
    rows = [{"id": i, "question": one.question, "context": one.context, "answers": [a.text for a in one.answers]}
            for i, one in enumerate(QUESTIONS)]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    evaluated = evaluate_task(tmp_path, file, threshold=threshold, articles="pt").scores
    assert (evaluated.details["threshold"], evaluated.details["articles"]) == (threshold, "pt")
    assert evaluated.values["no_answer_f1"] == after.values["no_answer_f1"]


def test_a_model_that_has_diverged_is_an_error_and_no_refusal() -> None:
    encoded = encode(QUESTIONS)
    (scores,) = random_scores(encoded, 0)
    scores[5, 1] = np.nan
    task = answers_of(spec(), True)
    for use in (score, evaluate, calibrated):
        with pytest.raises(PalavraError, match=r"outputs for 1 of \d+ tokens are not finite: it has diverged"):
            use(task, QUESTIONS, encoded, (scores,))


def test_a_threshold_is_cross_fitted_only_where_both_halves_have_both_sorts() -> None:
    """Passages are halved, not questions: all that have no answer may be on one of them."""
    answered = [replace(QUESTIONS[0], context=f"{QUESTIONS[0].context} {n % 3}") for n in range(30)]
    refused = [replace(QUESTIONS[7], context=answered[0].context) for _ in range(30)]
    questions = answered + refused
    encoded = encode(questions)
    _, found = calibrated(answers_of(spec(), True), questions, encoded, refusing_scores(encoded, 3))
    assert found.details["fitted"][0]["scored"] == "fitted-on"
