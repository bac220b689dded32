"""The defaults of fine-tuning: test scores of named settings over tasks, sizes of the training set and seeds.

    python benchmarks/finetuning_defaults.py MODEL DATA [--settings defaults frozen ...] [--sizes 16 500] [--seeds 3]

MODEL is a pretrained BERT directory; DATA a folder with one folder a task (TASKS below: JSONL or CoNLL files, gzipped).
A size of 16 means 16 examples of each class (64 examples where there are no classes); other sizes are numbers of
examples, all where a task has fewer. Training examples are drawn anew for each seed; a tenth of them is held out to
validate, as by default. Test sets are 500 examples, the same for every run. Texts are cut to 64 tokens. One thread.

"defaults" gives no option, so it measures the defaults of the installed version; every other setting says what it
changes. Runs are kept in --out by a hash of their resolved recipe, so a setting that resolves to a recipe that was run
already costs nothing, and an interrupted grid resumes. `--sweep N` also runs a sweep of N trials in each cell of the
first seed. The table has the mean score of each setting, that of the best baseline without a language model, and
what is left to the best setting of each task.
"""

import argparse
import gzip
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

import palavra

MAX_LENGTH, TESTED, VALIDATIONS = 64, 500, 5
WITHOUT_CLASSES = 64  # examples of the smallest size where there are no classes


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task: its kind, files and columns."""

    name: str
    kind: Literal["classification", "regression", "token-classification"] = "classification"
    suffix: str = "jsonl"
    columns: Mapping[str, str] = field(default_factory=dict)


TASKS = (
    Task(name="trec"),
    Task(name="sst2"),
    Task(name="banking77"),
    Task(name="mrpc", columns={"text_a": "text_a", "text_b": "text_b"}),
    Task(name="conll2003", kind="token-classification", suffix="conll"),
    Task(name="stsb", kind="regression", columns={"text_a": "text_a", "text_b": "text_b", "label": "score"}),
    Task(name="r8"),
    Task(name="toldbr"),
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Options of `palavra.finetune`, and the fewest `steps` of a run: more passes over small training sets."""

    options: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None


def _full(ratio: float, steps: int, **options: Any) -> Setting:
    return Setting(options={"epochs": 3, **options, "set": [f"strategy.head_lr_ratio={ratio:g}"]}, steps=steps)


SETTINGS = {
    "defaults": Setting(),
    "frozen": Setting(options={"strategy": "frozen"}),
    "frozen, 3 passes, mean": Setting(options={"strategy": "frozen", "epochs": 3, "pooling": "mean"}, steps=1),
    "frozen, 100 steps": Setting(options={"strategy": "frozen", "epochs": 3}, steps=100),
    "frozen, 100 steps, mean": Setting(options={"strategy": "frozen", "epochs": 3, "pooling": "mean"}, steps=100),
    "3 passes": _full(1, 1),
    "3 passes, head x20": _full(20, 1),
    "100 steps": _full(1, 100),
    "100 steps, head x10": _full(10, 100),
    "100 steps of 16, mean, head x10": _full(10, 100, batch_size=16, pooling="mean"),
    "3 passes, mean": _full(1, 1, pooling="mean"),
    "3 passes, mean, head x10": _full(10, 1, pooling="mean"),
    "50 steps, mean": _full(1, 50, pooling="mean"),
    "50 steps, mean, head x10": _full(10, 50, pooling="mean"),
    "50 steps, mean, head x30": _full(30, 50, pooling="mean"),
    "50 steps, mean, linear": _full(1, 50, pooling="mean", hidden_sizes=()),
    "50 steps, mean, linear, head x10": _full(10, 50, pooling="mean", hidden_sizes=()),
    "50 steps": _full(1, 50),
    "50 steps, head x10": _full(10, 50),
    "100 steps, mean, head x10": _full(10, 100, pooling="mean"),
    "200 steps, mean, head x10": _full(10, 200, pooling="mean"),
    "frozen, 200 steps, mean": Setting(options={"strategy": "frozen", "epochs": 3, "pooling": "mean"}, steps=200),
    "50 steps, mean, head x10, rate 2e-4": _full(10, 50, pooling="mean", learning_rate=2e-4),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A training set: task, size and seed."""

    task: Task
    size: int
    seed: int


def examples(file: Path) -> list[str]:
    """Return the examples of a gzipped file: its lines, or the sentences of CoNLL."""
    text = gzip.decompress(file.read_bytes()).decode()
    blocks = text.split("\n\n") if ".conll" in file.name else text.split("\n")
    return [block.strip("\n") for block in blocks if block.strip()]


def write(file: Path, chosen: Sequence[str]) -> Path:
    file.write_text(("\n\n" if file.suffix == ".conll" else "\n").join(chosen) + "\n")
    return file


def training_part(cell: Cell, every: Sequence[str]) -> list[str]:
    """Return the training examples of a cell."""
    order = np.random.default_rng([cell.seed, 1]).permutation(len(every)).tolist()
    if cell.size > 16:
        return [every[i] for i in order[: cell.size]]
    if cell.task.kind != "classification":
        return [every[i] for i in order[:WITHOUT_CLASSES]]
    taken: dict[str, list[str]] = {}
    for i in order:
        of = taken.setdefault(str(json.loads(every[i])["label"]), [])
        if len(of) < cell.size:
            of.append(every[i])
    return [example for of in taken.values() for example in of]


def known(test: Sequence[str], train: Sequence[str], task: Task) -> list[str]:
    """Return the test examples whose tags or labels are in the training part."""

    def labels(example: str) -> set[str]:
        if task.kind == "token-classification":
            return {line.split("\t")[-1] for line in example.split("\n")}
        return {str(json.loads(example)["label"])} if task.kind == "classification" else set()

    seen = set().union(*map(labels, train))
    return [example for example in test if labels(example) <= seen]


def prepare(cell: Cell, data: Path, folder: Path) -> tuple[Path, Path]:
    """Write the files of a cell: training and test examples."""
    source = data / cell.task.name
    train = training_part(cell, examples(source / f"train.{cell.task.suffix}.gz"))
    test = known(examples(source / f"test.{cell.task.suffix}.gz"), train, cell.task)
    order = np.random.default_rng(0).permutation(len(test))[:TESTED]
    return (
        write(folder / f"train.{cell.task.suffix}", train),
        write(folder / f"test.{cell.task.suffix}", [test[i] for i in order.tolist()]),
    )


def arguments(cell: Cell, setting: Setting, model: Path, train: Path) -> dict[str, Any]:
    """Return the arguments of `palavra.finetune` for a setting, with its length in steps."""
    options = {**cell.task.columns, **setting.options, "model": model, "max_length": MAX_LENGTH, "seed": cell.seed}
    options["set"] = ["train.threads=1", *options.get("set", ())]
    if setting.steps is None:
        return options
    epochs = options.pop("epochs")
    planned = palavra.plan_finetune(cell.task.kind, train, **options, epochs=epochs)
    options["steps"] = max(planned.steps, setting.steps)
    part, an_epoch = -(-options["steps"] // VALIDATIONS), -(-planned.steps // epochs)
    if part > an_epoch:
        options["set"].append(f"train.eval_every={part}")
    return options


def identity(cell: Cell, recipe: Any) -> str:
    """Return the hash of a resolved recipe without its paths, and of what the cell trains on and is tested on."""
    values = asdict(recipe)
    del values["model"], values["train"]["epochs"]
    for task in values["tasks"]:
        del task["train"], task["valid"], task["test"]
    where = {"task": cell.task.name, "size": cell.size, "seed": cell.seed, "tested": TESTED}
    text = json.dumps({**where, "recipe": values}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run(cell: Cell, name: str, options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Run a setting in a cell, unless its recipe was run, and keep its row."""
    with tempfile.TemporaryDirectory() as folder:
        train, test = prepare(cell, options.data, Path(folder))
        given = arguments(cell, SETTINGS[name], options.model, train)
        planned = palavra.plan_finetune(cell.task.kind, train, **given)
        row: dict[str, Any] = {
            "task": cell.task.name, "size": cell.size, "seed": cell.seed, "setting": name,
            "recipe": identity(cell, planned.recipe), "steps": planned.steps,
        }  # fmt: skip
        same = next((one for one in rows if one["recipe"] == row["recipe"]), None)
        if same is None:
            began = time.perf_counter()
            out = Path(folder) / "run"
            found = palavra.finetune(cell.task.kind, train, test=test, out=out, quiet=True, **given)
            row |= {kind: scores.values.get(scores.main, 0.0) for kind, scores in found.scores["task"].items()}
            row["baseline"] = baseline(out, found.scores["task"]["test"].main)
            row["seconds"] = round(time.perf_counter() - began, 1)
        else:
            row |= {key: same[key] for key in ("valid", "test", "baseline", "seconds") if key in same}
    keep(row, options.out, rows)


def baseline(run: Path, main: str) -> float:
    """Return the best test score that a finished run was compared with."""
    task = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["tasks"][0]
    return max(one["values"].get(main, 0.0) for one in task["baselines"]["test"])


def search(cell: Cell, options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """Run a sweep with its own default space in a cell, and keep its row."""
    with tempfile.TemporaryDirectory() as folder:
        train, test = prepare(cell, options.data, Path(folder))
        given = arguments(cell, SETTINGS["defaults"], options.model, train)
        began = time.perf_counter()
        out = Path(folder) / "sweep"
        found = palavra.sweep(cell.task.kind, train, test=test, out=out, trials=options.sweep, quiet=True, **given)
        scores = dict(found.scores)
    row = {"task": cell.task.name, "size": cell.size, "seed": cell.seed, "setting": f"sweep of {options.sweep}",
           "recipe": f"sweep of {options.sweep}", "scores": scores,
           "seconds": round(time.perf_counter() - began, 1)}  # fmt: skip
    keep(row, options.out, rows)


def keep(row: dict[str, Any], file: Path, rows: list[dict[str, Any]]) -> None:
    rows.append(row)
    print(f"  {row}", flush=True)
    with file.open("a") as out:
        out.write(json.dumps(row) + "\n")


def table(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a table for each size: settings by tasks, means over seeds in points; only cells that every setting has."""
    for size in sorted({row["size"] for row in rows}):
        scores: dict[str, dict[tuple[str, int], float]] = {name: {} for name in names}
        for row in rows:
            if row["size"] == size and row["setting"] in scores:
                scores[row["setting"]][row["task"], row["seed"]] = 100 * row["test"]
        scores = {name: of for name, of in scores.items() if of}
        shared = sorted(set.intersection(*(set(of) for of in scores.values()))) if scores else []
        tasks = list(dict.fromkeys(task for task, _ in shared))
        seeds = {task: sum(one == task for one, _ in shared) for task in tasks}
        if not shared:
            continue
        yield f"\n{'16 a class' if size == 16 else f'{size:,} examples'}; seeds: {seeds}\n"
        yield f"| setting | {' | '.join(tasks)} | mean |"
        yield f"|---|{'---:|' * (len(tasks) + 1)}"
        means = {
            name: {task: statistics.mean(of[cell] for cell in shared if cell[0] == task) for task in tasks}
            for name, of in scores.items()
        }
        known = {cell: 100 * row["baseline"] for row in rows for cell in shared
                 if "baseline" in row and (row["size"], row["task"], row["seed"]) == (size, *cell)}  # fmt: skip
        if set(known) == set(shared):
            of_task = {task: [known[cell] for cell in shared if cell[0] == task] for task in tasks}
            yield table_row("without a language model", {task: statistics.mean(of) for task, of in of_task.items()})
        means["best of each task"] = {task: max(of[task] for of in means.values()) for task in tasks}
        for name, found in means.items():
            yield table_row(name, found)


def table_row(name: str, found: Mapping[str, float]) -> str:
    values = [*found.values(), statistics.mean(found.values())]
    return f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a pretrained model")
    parser.add_argument("data", type=Path, help="folder with a folder for each task")
    parser.add_argument("--tasks", nargs="*", default=[task.name for task in TASKS])
    parser.add_argument("--sizes", nargs="*", type=int, default=[16, 500, 5000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--settings", nargs="*", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--sweep", type=int, metavar="TRIALS", help="also run a sweep in each cell of the first seed")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start no run after as many")
    parser.add_argument("--out", type=Path, default=Path("finetuning_defaults.jsonl"))
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    done = {(row["task"], row["size"], row["seed"], row["setting"]) for row in rows}
    tasks = [task for task in TASKS if task.name in options.tasks]
    cells = [
        Cell(task=task, size=size, seed=seed)
        for seed in range(options.seeds) for size in options.sizes for task in tasks
    ]  # fmt: skip
    began = time.monotonic()
    for cell in cells:
        for name in options.settings:
            if (
                cell.task.name,
                cell.size,
                cell.seed,
                name,
            ) not in done and time.monotonic() - began < 60 * options.minutes:
                run(cell, name, options, rows)
        if (
            options.sweep
            and cell.seed == 0
            and not any(
                row["setting"] == f"sweep of {options.sweep}"
                and (row["task"], row["size"]) == (cell.task.name, cell.size)
                for row in rows
            )
        ):
            search(cell, options, rows)
    print("\n".join(table(options.settings, rows)))


if __name__ == "__main__":
    main()
