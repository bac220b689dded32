"""The page of a pretraining run: examples, learning curves, scores, data and model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from palavra.report import charts, task_charts
from palavra.report.charts import Series
from palavra.report.formatting import count, loss, percent
from palavra.report.parts import Picture, Table, family, machine, optimizer_pictures, picture_at
from palavra.report.records import PretrainingRecords
from palavra.run_records.pretraining import ContinuedText, Fill, FilledText, FrequencyBand, PretrainingRun

MASKS = ("[MASK]", "<mask>")  # RoBERTa's tokenizers write the second
MARKED_SWITCHES = 4  # more changes of objective are a mixture, not a switch to mark
DRAWN_BANDS = 12


@dataclass(frozen=True, kw_only=True)
class Example:
    """A sentence cut at its masks: one more piece than masks; a mask holds its fills, best first."""

    mask: str
    pieces: Sequence[str]
    masks: Sequence[Sequence[Fill]]


def pretraining_page(records: PretrainingRecords) -> dict[str, Any]:
    """Return what `pretraining.html` shows besides the records."""
    run, evaluation = records.run, records.evaluation
    bands = evaluation.masked.bands if evaluation.masked else ()
    peak = Series.of(records.train, "peak_share").values
    return {
        "subtitle": _subtitle(run) if run else (),
        "result": _result(records),
        "peak": float(peak.mean()) if len(peak) else None,
        "figures": _pictures(records, bands),
        "examples": [_example(one) for one in records.examples if isinstance(one, FilledText)],
        "continuations": [one for one in records.examples if isinstance(one, ContinuedText)],
        "bands": Table(
            caption="By frequency in the training text",
            columns=("Rank", "Masked tokens", "Accuracy", "At 5", "Loss"),
            rows=[
                (one.band, count(one.tokens), percent(one.accuracy), percent(one.accuracy_at_5), loss(one.loss))
                for one in bands
            ],
        ),
        "candidates": _candidates(run) if run else None,
    }


def _subtitle(run: PretrainingRun) -> list[str]:
    model = run.model
    shape = f"{count(model.num_layers)} layers of width {count(model.hidden_size)}"
    return [family(model.family), shape, *machine(run.environment)]


def _result(records: PretrainingRecords) -> Mapping[str, float | None]:
    """Return the scores of the final evaluation, of an unfinished run those of its last validation."""
    result = records.evaluation.masked or records.evaluation.causal
    if result:
        return vars(result)
    return records.valid[-1].values if records.valid else {}


def _candidates(run: PretrainingRun) -> Table:
    minutes, candidates = run.budget.minutes, run.budget.candidates
    return Table(
        caption="Candidates" + (f" for {minutes:g} minutes" if minutes is not None else ""),
        columns=("Size", "Tokens/s", "Steps", "Predicted loss"),
        rows=[
            (one.size + " (chosen)" * one.chosen, count(one.tokens_per_second), count(one.steps),
             loss(one.predicted_loss))
            for one in candidates
        ],
        chosen=frozenset(index for index, one in enumerate(candidates) if one.chosen),
    )  # fmt: skip


def _pictures(records: PretrainingRecords, bands: Sequence[FrequencyBand]) -> dict[str, Picture]:
    """Return the pictures that the records allow, by name."""
    train, valid = (partial(Series.of, lines) for lines in (records.train, records.valid))
    svg = {}
    if len(train("loss")) or len(valid("loss")):
        named = {"validation": valid("loss")} if records.valid else {}
        svg["loss"] = charts.loss(train("loss"), named, "nats per token", _switches(train("causal")))
    accuracies = {key: valid(key) for key in ("accuracy", "accuracy_at_5") if len(valid(key))}
    if accuracies:
        svg["accuracy"] = task_charts.task_scores(accuracies)
    panels = {
        "throughput": {"tokens per second": train("tokens_per_second"), "fraction of peak": train("peak_share")},
        "packing": {
            "fraction of the token budget filled": train("packing_efficiency"),
            "fraction of tokens sampled for prediction": train("mask_rate"),
        },
    }
    svg |= {name: charts.panels(named) for name, named in panels.items() if any(map(len, named.values()))}
    if bands:
        svg["bands"] = charts.bands(bands[:DRAWN_BANDS])
    result = records.evaluation.masked or records.evaluation.causal
    filled = [fills for one in records.examples if isinstance(one, FilledText) for fills in one.fills if fills]
    svg["probability"] = charts.loss_against_probability(
        bands[:DRAWN_BANDS], [fills[0].probability for fills in filled], result.loss if result else None,
        records.run.model.vocab_size if records.run else None,
    )  # fmt: skip
    return {name: picture_at(name, name, text) for name, text in svg.items()} | optimizer_pictures(records.train)


def _switches(causal: Series) -> list[float]:
    """Return the logged steps at which a run went over from one objective to the other."""
    changed = np.flatnonzero(np.diff(causal.values)) + 1
    return causal.steps[changed].tolist() if len(changed) <= MARKED_SWITCHES else []


def _example(example: FilledText) -> Example:
    """Join a sentence with its fills; a mask without fills stays open, fills without a mask are not shown."""
    mask = next((name for name in MASKS if example.text.count(name) == len(example.fills)), MASKS[0])
    pieces = example.text.split(mask)
    missing = len(pieces) - 1 - len(example.fills)
    return Example(mask=mask, pieces=pieces, masks=[*example.fills, *[()] * missing][: len(pieces) - 1])
