"""The page of a pretraining run: what it fills in, how it learned, how well it predicts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from markupsafe import Markup

from palavra.report import charts
from palavra.report.charts import BandBar, Series
from palavra.report.facts import Format, Tile, facts, family, label, texts
from palavra.report.formatting import (
    ABSENT,
    count,
    duration,
    loss,
    number,
    percent,
    perplexity,
    plain,
    size,
    visible,
)
from palavra.report.records import JsonObject, Records, mapping, objects
from palavra.report.summaries import learning_curve_pictures

MASKS = ("[MASK]", "<mask>")  # the second is what tokenizers in the manner of RoBERTa write


@dataclass(frozen=True, kw_only=True)
class ShownFill:
    """One filled token; `share` is its probability in percent for the bar, between 0 and 100."""

    token: str
    share: str
    probability: str


@dataclass(frozen=True, kw_only=True)
class Example:
    """A sentence cut at its masks: one more piece than masks; a mask holds its fills, best first."""

    mask: str
    pieces: tuple[str, ...]
    masks: tuple[tuple[ShownFill, ...], ...]


def pretraining_page(records: Records) -> dict[str, Any]:
    """What `pretraining.html` shows, by the template's names."""
    run, predicted = records.run, _of_tokens(records.evaluation)
    rows = _bands(predicted)
    budget = mapping(run.get("budget"))
    return {
        "subtitle": _subtitle(run),
        "tiles": _tiles(records),
        "notices": _notices(records),
        "curve": learning_curve_pictures(records.learning_curve),
        "figures": _figures(records, rows),
        "examples": [_example(row) for row in records.examples if "fills" in row],
        "continuations": [
            (plain(row.get("prompt")), plain(row.get("text"))) for row in records.examples if "prompt" in row
        ],
        "band_rows": _band_table(objects(predicted.get("bands"))),
        "evaluation": _evaluation_sentence(records.evaluation),
        "packing": [Tile(label=k, value=v) for k, v in facts(mapping(run.get("packing")), PACKING)],
        "data": facts(mapping(run.get("data")), DATA),
        "warnings": texts(mapping(run.get("data")).get("warnings")),
        "model": facts(mapping(run.get("model")), MODEL),
        "minutes": number(budget.get("minutes")),
        "rule": texts(budget.get("rule")),
        "candidates": _candidates(budget),
        "environment": [(label(key), plain(value)) for key, value in mapping(run.get("environment")).items()],
    }


# --- the head of the page -----------------------------------------------------------------------------------


def _subtitle(run: JsonObject) -> str:
    model, environment = mapping(run.get("model")), mapping(run.get("environment"))
    parts = []
    if model.get("family"):
        shape = f"{count(model.get('num_layers'))} layers of width {count(model.get('hidden_size'))}"
        parts.append(f"{family(model['family'])}, {shape}")
    if environment.get("processor"):
        device = f" ({plain(environment['device'])})" if environment.get("device") else ""
        parts.append(f"trained on {plain(environment['processor'])}{device}")
    if environment.get("precision"):
        parts.append(f"in {plain(environment['precision'])}")
    return ", ".join(parts)


def _tiles(records: Records) -> list[Tile]:
    evaluation, model = _of_tokens(records.evaluation), mapping(records.run.get("model"))
    training = mapping(records.run.get("training"))
    last = records.train[-1] if records.train else {}
    source, note = evaluation, "whole validation set"
    if number(evaluation.get("loss")) is None and records.valid:
        source = records.valid[-1]
        note = f"at step {count(source.get('step'))}, the last validation"
    tokens = training.get("tokens", last.get("tokens"))
    steps = training.get("steps", last.get("step"))
    train_tokens = number(mapping(records.run.get("data")).get("train_tokens"))
    passes = f"{(number(tokens) or 0) / train_tokens:.2g} passes over the text" if train_tokens else ""
    seconds = training.get("seconds", last.get("seconds"))
    vocabulary = f"vocabulary of {count(model['vocab_size'])}" if model.get("vocab_size") else ""
    share = [value for row in records.train if (value := number(row.get("peak_share"))) is not None]
    peak = f"{percent(sum(share) / len(share), 0)} of the machine’s peak" if share else ""
    speed = training.get("tokens_per_second", last.get("tokens_per_second"))
    tiles = [
        Tile(label="Validation loss", value=loss(source.get("loss")), note=f"nats per token, {note}"),
        Tile(label="Perplexity", value=perplexity(source.get("perplexity")), note="exp of the loss"),
        *_quality_tiles(source),
        *_tiles_beside(records.evaluation),
        Tile(label="Tokens seen", value=count(tokens), note=passes),
        Tile(label="Training time", value=duration(seconds), note=f"{count(steps)} steps"),
        Tile(label="Tokens per second", value=count(speed), note=peak),
        Tile(label="Parameters", value=count(model.get("parameters")), note=vocabulary),
    ]
    return [tile if tile.value != ABSENT else replace(tile, note="") for tile in tiles]


def _quality_tiles(found: JsonObject) -> list[Tile]:
    """What else is known of the predictions: of hidden tokens, or of next ones."""
    if number(found.get("bits_per_byte")) is not None:
        words = perplexity(found.get("perplexity_per_word"))
        return [
            Tile(label="Bits per byte", value=loss(found.get("bits_per_byte")), note="whatever the tokenizer"),
            Tile(label="Perplexity per word", value=words, note="whatever the tokenizer"),
        ]
    accuracy = "of masked tokens, first choice right"
    return [
        Tile(label="Masked accuracy", value=percent(found.get("accuracy")), note=accuracy),
        Tile(label="Accuracy at 5", value=percent(found.get("accuracy_at_5")), note="right one among five"),
    ]


def _of_tokens(evaluation: JsonObject) -> JsonObject:
    """The part of an evaluation that is about tokens, hidden or next: the first, where a model has learned several
    things at once."""
    return mapping(evaluation.get("masked")) or evaluation


def _tiles_beside(evaluation: JsonObject) -> list[Tile]:
    """What is known of that which was learned beside hidden tokens."""
    causal, pairs = mapping(evaluation.get("causal")), mapping(evaluation.get("next_sentence"))
    note = "of next tokens, read from left to right"
    tiles = [
        Tile(label="Causal loss", value=loss(causal.get("loss")), note=f"nats per token, {note}"),
        Tile(label="Causal perplexity", value=perplexity(causal.get("perplexity")), note=note),
        Tile(label="Causal bits per byte", value=loss(causal.get("bits_per_byte")), note="whatever the tokenizer"),
        Tile(
            label="Next-sentence accuracy", value=percent(pairs.get("accuracy")),
            note=f"of {count(pairs.get('pairs'))} pairs, {percent(pairs.get('exchanged'))} of them exchanged; "
            f"always the same answer: {percent(pairs.get('baseline'))}",
        ),
    ]  # fmt: skip
    return [tile for tile in tiles if tile.value != ABSENT]


def _notices(records: Records) -> list[str]:
    training = mapping(records.run.get("training"))
    notices = []
    absent = [*records.absent, *["run.json has no summary of the training"] * bool(records.run and not training)]
    if absent:
        notices.append(f"Parts are missing, as from a run that goes on or was cut short: {'; '.join(absent)}.")
    if training.get("stopped"):
        notices.append(f"Training stopped early: {plain(training['stopped'])}")
    return notices


# --- pictures -----------------------------------------------------------------------------------------------


def _figures(records: Records, rows: Sequence[BandBar]) -> dict[str, Markup]:
    """The pictures that the records allow, by name; charts escape their own text."""
    train, valid = records.train, records.valid
    losses, valid_losses = Series.of(train, "loss"), Series.of(valid, "loss")
    first, fifth = Series.of(valid, "accuracy"), Series.of(valid, "accuracy_at_5")
    rate, norm = Series.of(train, "learning_rate"), Series.of(train, "gradient_norm")
    speed, share = Series.of(train, "tokens_per_second"), Series.of(train, "peak_share")
    efficiency, masked = Series.of(train, "packing_efficiency"), Series.of(train, "mask_rate")
    svg = {"probability": _loss_against_probability(records, rows)}
    if len(losses) or len(valid_losses):
        svg["loss"] = charts.loss(losses, valid_losses, _switches(Series.of(train, "causal")))
    if len(first) or len(fifth):
        svg["accuracy"] = charts.accuracy(first, fifth)
    if len(rate):
        svg["rate"] = charts.learning_rate(rate)
    if len(norm):
        svg["gradient"] = charts.gradient_norm(norm)
    if len(speed):
        svg["throughput"] = charts.throughput(speed, share)
    if len(efficiency) or len(masked):
        svg["packing"] = charts.packing(efficiency, masked)
    if rows:
        svg["bands"] = charts.bands(rows)
    return {name: Markup(text) for name, text in svg.items()}


# More changes than these are a mixture throughout the run, not a switch to be marked.
MARKED_SWITCHES = 4


def _switches(causal: Series) -> list[float]:
    """The logged steps at which a run went over from one objective to the other."""
    changed = np.flatnonzero(np.diff(causal.values)) + 1
    return causal.steps[changed].tolist() if len(changed) <= MARKED_SWITCHES else []


def _loss_against_probability(records: Records, rows: Sequence[BandBar]) -> str:
    best = [fills[0].get("probability") for row in records.examples for fills in _fills(row) if fills]
    return charts.loss_against_probability(
        rows,
        [probability for value in best if (probability := number(value)) is not None],
        number(_of_tokens(records.evaluation).get("loss")),
        number(mapping(records.run.get("model")).get("vocab_size")),
    )


def _bands(evaluation: JsonObject) -> list[BandBar]:
    return [
        BandBar(
            # The pictures' font is not the page's, so names are held to what every font has.
            name=plain(row.get("band")).encode("ascii", "replace").decode().replace("\n", " ")[:24],
            accuracy=number(row.get("accuracy")),
            accuracy_at_5=number(row.get("accuracy_at_5")),
            loss=number(row.get("loss")),
        )
        for row in objects(evaluation.get("bands"))[:12]
    ]


# --- tables and lists ---------------------------------------------------------------------------------------


DATA: tuple[tuple[str, str, Format], ...] = (
    ("sources", "Sources", plain),
    ("documents", "Documents", count),
    ("duplicates", "Exact duplicates dropped", count),
    ("empty", "Empty documents", count),
    ("bytes", "Text", size),
    ("tokens", "Tokens", count),
    ("train_documents", "Training documents", count),
    ("train_tokens", "Training tokens", count),
    ("valid_documents", "Validation documents", count),
    ("valid_tokens", "Validation tokens", count),
    ("mean_tokens", "Mean document, tokens", count),
    ("longest_document", "Longest document, tokens", count),
)
PACKING: tuple[tuple[str, str, Format], ...] = (
    ("efficiency", "Budget filled", percent),
    ("batch_tokens", "Tokens in a batch", count),
    ("context", "Context, tokens", count),
    ("pieces", "Pieces packed", count),
    ("cut_documents", "Documents cut to fit", count),
)
MODEL: tuple[tuple[str, str, Format], ...] = (
    ("family", "Family", family),
    ("num_layers", "Layers", count),
    ("hidden_size", "Width", count),
    ("num_heads", "Attention heads", count),
    ("intermediate_size", "Feed-forward width", count),
    ("vocab_size", "Vocabulary", count),
    ("context", "Context, tokens", count),
    ("parameters", "Parameters", count),
    ("parameters_without_embeddings", "Without embeddings", count),
)


def _band_table(rows: Iterable[JsonObject]) -> list[tuple[str, ...]]:
    return [
        (
            plain(row.get("band")),
            count(row.get("tokens")),
            percent(row.get("accuracy")),
            percent(row.get("accuracy_at_5")),
            loss(row.get("loss")),
        )
        for row in rows
    ]


def _candidates(budget: JsonObject) -> list[tuple[bool, tuple[str, ...]]]:
    return [
        (
            row.get("chosen") is True,
            (
                plain(row.get("size")),
                count(row.get("tokens_per_second")),
                count(row.get("steps")),
                loss(row.get("predicted_loss")),
            ),
        )
        for row in objects(budget.get("candidates"))
    ]


def _evaluation_sentence(evaluation: JsonObject) -> str:
    evaluation = _of_tokens(evaluation)
    if not evaluation:
        return ""
    if "corruption" not in evaluation:
        return (
            f"Measured on {count(evaluation.get('tokens'))} next tokens of validation text, the end of each document "
            "among them. Bits per byte and perplexity per word do not depend on the tokenizer."
        )
    share = percent(mapping(evaluation.get("corruption")).get("share"), 0)
    return (
        f"Measured on {count(evaluation.get('tokens'))} hidden tokens of validation text, {share} of it, with "
        "one fixed corruption, so these numbers compare between runs whatever share training used."
    )


# --- examples -----------------------------------------------------------------------------------------------


def _fills(row: JsonObject) -> list[list[JsonObject]]:
    value: Any = row.get("fills")
    return [objects(fills) for fills in value] if isinstance(value, list) else []


def _example(row: JsonObject) -> Example:
    """Join a sentence with its fills; a mask without fills stays open, fills without a mask are not shown."""
    text, fills = plain(row.get("text")), _fills(row)
    mask = next((name for name in MASKS if text.count(name) == len(fills)), MASKS[0])
    pieces = text.split(mask)
    fills = fills[: len(pieces) - 1]
    fills += [[]] * (len(pieces) - 1 - len(fills))
    return Example(mask=mask, pieces=tuple(pieces), masks=tuple(tuple(map(_fill, part)) for part in fills))


def _fill(row: JsonObject) -> ShownFill:
    probability = number(row.get("probability"))
    share = min(max(probability or 0.0, 0.0), 1.0)
    token = row.get("token")
    return ShownFill(
        token=visible(token) if isinstance(token, str) else ABSENT,
        share=f"{100 * share:.2f}",
        probability=percent(probability),
    )
