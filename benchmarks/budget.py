"""What each size reaches in a given time, the law fitted to it, and the size that law would pick.

    python benchmarks/budget.py TEXT... --minutes 1 3 10 --sizes nano micro mini small --out budget.jsonl

Trains every size for every number of minutes on the same text, on this machine, one after the other. Prints a table of
held-out loss and masked accuracy, the constants of `palavra.pretraining.plan.scaling_law.ScalingLaw` fitted to the rows
of at least `FEWEST_STEPS` steps (least squares of the logarithm of the loss with Huber's loss, as Hoffmann et al. 2022,
section D.2; a size that makes fewer is never chosen), and, for each time, the size that was
best beside the one that the fitted law ranks first. `--set` passes recipe fields on. Rows are appended to --out; what
is there already, of the same text, settings and machine, is not measured again. Run it on a machine that does nothing
else.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from scipy.optimize import least_squares

import palavra
from palavra.inference.evaluation import Evaluation
from palavra.pretraining.plan.model_size import FEWEST_STEPS
from palavra.pretraining.plan.scaling_law import SCALING_LAW, ScalingLaw
from palavra.training.environment import processor_name
from palavra.training.run_directory import RunDirectory

HUBER = 1e-2  # beyond this error of log(loss) a row counts less
# Where the constants are looked for.
LOWEST = {"floor": 0.5, "size": 1e-2, "size_power": 0.05, "tokens": 1e-2, "tokens_power": 0.05}
HIGHEST = {"floor": 4.0, "size": 1e6, "size_power": 1.0, "tokens": 1e9, "tokens_power": 1.0}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run: what it was given, saw, and reached on held-out text. `settings` are what all rows of a table share;
    `parameters` are those outside the embeddings; `accuracy` is that of hidden tokens, where there are any."""

    settings: str
    minutes: float
    size: str
    parameters: int
    steps: int
    tokens: int
    unique_tokens: int
    seconds: float
    loss: float
    accuracy: float | None


def settings_of(options: argparse.Namespace) -> str:
    """What decides the numbers beside size and time."""
    text = ", ".join(Path(name).name for name in options.text)
    vocabulary = "" if options.vocab_size is None else f", vocabulary {options.vocab_size:,}"
    return (
        f"{processor_name()}, {options.threads} threads, torch {torch.__version__}; {text}{vocabulary}"
        f"{''.join(f', {one}' for one in options.set)}"
    )


def measure(minutes: float, size: str, options: argparse.Namespace) -> Row:
    """Train once."""
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        finished = palavra.pretrain(
            *options.text, out=out, minutes=minutes, size=size, vocab_size=options.vocab_size, column=options.column,
            set=[f"train.threads={options.threads}", *options.set],
        )  # fmt: skip
        found = finished.evaluation
        if found is None:
            raise SystemExit("no text was held out: give more documents")
        described = RunDirectory(out).read_json("run.json")
    return Row(
        settings=settings_of(options),
        minutes=minutes,
        size=size,
        parameters=described["model"]["parameters_without_embeddings"],
        steps=finished.steps,
        tokens=finished.tokens,
        unique_tokens=described["data"]["train_tokens"],
        seconds=finished.seconds,
        loss=found.loss,
        accuracy=found.accuracy if isinstance(found, Evaluation) else None,
    )


def fit(rows: Sequence[Row]) -> ScalingLaw:
    """The law nearest to the rows; it has five constants, so it needs more rows than that."""

    def law(values: Sequence[float]) -> ScalingLaw:
        floor, size, size_power, tokens, tokens_power = (math.exp(value) for value in values)
        return ScalingLaw(floor=floor, size=size, size_power=size_power, tokens=tokens, tokens_power=tokens_power)

    def errors(values: Sequence[float]) -> list[float]:
        found = law(values)
        return [math.log(found.loss(row.parameters, row.tokens, row.unique_tokens) / row.loss) for row in rows]

    begin = [math.log(value) for value in asdict(SCALING_LAW).values()]
    bounds = tuple([math.log(side[name]) for name in asdict(SCALING_LAW)] for side in (LOWEST, HIGHEST))
    return law(least_squares(errors, begin, bounds=bounds, loss="huber", f_scale=HUBER, max_nfev=10_000).x)


def table(rows: Sequence[Row], law: ScalingLaw | None) -> Iterator[str]:
    """The runs as markdown; the best of each time in bold."""
    yield "| minutes | size | parameters | steps | tokens | tokens/s | loss | masked accuracy | the law's loss |"
    yield "|---:|---|---:|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        best = min(other.loss for other in rows if other.minutes == row.minutes) == row.loss
        size = f"**{row.size}**" if best else row.size
        expected = f"{law.loss(row.parameters, row.tokens, row.unique_tokens):.3f}" if law else ""
        accuracy = "" if row.accuracy is None else f"{row.accuracy:.1%}"
        yield (
            f"| {row.minutes:g} | {size} | {row.parameters:,} | {row.steps:,} | {row.tokens:,} | "
            f"{row.tokens / row.seconds:,.0f} | {row.loss:.3f} | {accuracy} | {expected} |"
        )


def picks(rows: Sequence[Row], law: ScalingLaw) -> Iterator[str]:
    """Whether the law picks the size that was best, for each time."""
    for minutes in sorted({row.minutes for row in rows}):
        tried = [row for row in rows if row.minutes == minutes]
        best = min(tried, key=lambda row: row.loss)
        picked = min(tried, key=lambda row: law.loss(row.parameters, row.tokens, row.unique_tokens))
        yield f"{minutes:g} minutes: {best.size} was best ({best.loss:.3f}), the law picks {picked.size}"


def main() -> None:
    """Read the options, measure what is missing, print it all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="+")
    parser.add_argument("--minutes", nargs="+", type=float, default=[1.0, 3.0])
    parser.add_argument("--sizes", nargs="+", default=["nano", "micro", "mini"])
    parser.add_argument("--vocab-size", type=int, default=None)
    parser.add_argument("--column", default=None)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("budget.jsonl"))
    parser.add_argument("--set", nargs="*", default=[])
    options = parser.parse_args()
    stored = options.out.read_text().splitlines() if options.out.exists() else []
    rows = [row for line in stored if (row := Row(**json.loads(line))).settings == settings_of(options)]
    for minutes in options.minutes:
        for size in options.sizes:
            if any((row.minutes, row.size) == (minutes, size) for row in rows):
                continue
            rows.append(measure(minutes, size, options))
            print(f"  {rows[-1]}", flush=True)
            with options.out.open("a") as file:
                file.write(json.dumps(asdict(rows[-1])) + "\n")
    long_enough = [row for row in rows if row.steps >= FEWEST_STEPS]
    law = fit(long_enough) if len(long_enough) > len(asdict(SCALING_LAW)) else None
    print(f"\n{settings_of(options)}\n")
    print("\n".join(table(rows, law)))
    if law is not None:
        print(f"\n{law}\n")
        print("\n".join(picks(rows, law)))


if __name__ == "__main__":
    main()
