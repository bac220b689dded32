"""Records of fine-tuning runs of every kind, without weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from builders.reports import ATTACK

Json = dict[str, Any]


def per_class(names: list[str], counts: np.ndarray[Any, Any]) -> list[Json]:
    """Rows as the scores have them."""
    hits, found, support = np.diag(counts), np.maximum(counts.sum(0), 1), np.maximum(counts.sum(1), 1)
    return [
        {"name": name, "precision": float(h / f), "recall": float(h / s), "f1": float(2 * h / (f + s)),
         "support": int(s), "auroc": None}
        for name, h, f, s in zip(names, hits, found, support, strict=True)
    ]  # fmt: skip


def classified(classes: int, seed: int) -> Json:
    """The scores of a split with so many classes."""
    random = np.random.default_rng(seed)
    counts = np.diag(random.integers(20, 60, classes))
    for row, column in random.integers(classes, size=(3 * classes, 2)).tolist():
        counts[row, column] += int(random.integers(1, 7))
    names = [f"class_{number}_of_the_bank" if classes > 30 else f"topic {number}" for number in range(classes)]
    edges = np.linspace(0, 1, 16)
    bins = [
        {"low": low, "high": high, "confidence": (low + high) / 2, "accuracy": max(0.0, (low + high) / 2 - 0.06),
         "count": int(400 * high**6)}
        for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
    ]  # fmt: skip
    empty = {"confidence": None, "accuracy": None, "count": 0}
    errors = [
        {"where": f"/data/test.jsonl:{number}", "text": f"{ATTACK} what is it? " * 4, "label": names[0],
         "predicted": names[1], "probability": 0.97 - number / 100}
        for number in range(20)
    ]  # fmt: skip
    accuracy = float(np.trace(counts) / counts.sum())
    interval = {"low": accuracy - 0.02, "high": accuracy + 0.02, "level": 0.95, "samples": 1000}
    values = {"accuracy": accuracy, "macro_f1": accuracy - 0.02, "matthews": 0.912, "auroc": 0.99, "loss": 0.2245,
              "calibration_error": 0.0305}  # fmt: skip
    return {
        "main": "accuracy",
        "values": values,
        "interval": interval,
        "intervals": {"accuracy": interval},
        "details": {"per_class": per_class(names, counts), "confusion": counts.tolist(),
                    "reliability": [bins[0] | empty, *bins[1:]], "errors": errors},
    }  # fmt: skip


def regressed() -> Json:
    """The scores of a split of a regression with two targets."""
    random = np.random.default_rng(3)
    points = {}
    for name in ("similarity", "fluency"):
        true = random.uniform(0, 5, 400)
        points[name] = np.stack([true, true + random.normal(0, 0.5, 400)], 1).tolist()
    row: Json = {"mse": 0.25, "rmse": 0.5, "mae": 0.4, "r2": None, "pearson": 0.88, "spearman": 0.87}
    errors = [{"where": "a.tsv:3", "text": "one | two", "label": "4.5", "predicted": "1.2"}]
    details = {"points": points, "errors": errors, "per_target": [row | {"name": name} for name in points]}
    return {"main": "pearson", "values": row | {"r2": 0.75}, "interval": None, "intervals": {}, "details": details}


def labelled() -> Json:
    """The scores of a split of a token labelling."""
    counts = np.diag([50, 40, 30]) + 3
    errors = [{"where": "b.conll:9", "text": "in [Porto] we", "word": "Porto", "label": "B-LOC", "predicted": "B-ORG",
               "probability": 0.98}]  # fmt: skip
    values = {"f1": 0.912, "precision": 0.9, "recall": 0.924, "macro_f1": 0.9, "token_accuracy": 0.98, "loss": 0.1}
    return {"main": "f1", "values": values, "interval": None, "intervals": {},
            "details": {"per_class": per_class(["LOC", "ORG", "PER"], counts), "errors": errors}}  # fmt: skip


def task_run(name: str, kind: str, data: Json) -> Json:
    """A task in run.json."""
    head = {"pooling": "cls", "hidden_sizes": [384], "activation": "tanh", "norm": "none", "bias": True, "dropout": 0.1,
            "parameters": 150_150, "output_parameters": 2_310}  # fmt: skip
    return {"name": name, "kind": kind, "examples": {"train": 4907, "valid": 545, "test": 500}, "data": data,
            "truncated": 17, "head": head}  # fmt: skip


def make_finetuning(directory: Path, tasks: list[Json], evaluated: list[Json], **files: Any) -> Path:
    """A finished fine-tuning run's records, without weights."""
    directory.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    lines: list[Json] = []
    for step in range(10, 301, 10):
        value = 1.6 * float(np.exp(-step / 90)) + 0.2
        lines.append({"kind": "train", "step": step, "loss": value + float(random.normal(0, 0.05)),
                      "learning_rate": 1e-4 * (1 - step / 310), "gradient_norm": 2.0, "tokens": 9 * step})  # fmt: skip
        if step % 60 == 0:
            line: Json = {"kind": "valid", "step": step}
            for task in evaluated:
                before = f"{task['name']}/" if len(evaluated) > 1 else ""
                for key, number in task["splits"]["valid"]["values"].items():
                    grown = value + 0.05 if key == "loss" else number * (1 - value / 8)
                    line[before + key] = grown
            lines.append(line)
    run = {
        "run": "fine-tuning",
        "examples_hash": "0" * 64,
        "environment": {
            "palavra": "0.1.0",
            "processor": "AMD EPYC",
            "device": "cpu",
            "precision": "bfloat16",
            "cores": 2,
        },
        "model": {
            "pretrained": "/models/minilm/",
            "pretrained_with": None,
            "family": "bert",
            "num_layers": 6,
            "hidden_size": 384,
            "num_heads": 12,
            "context": 512,
            "vocab_size": 30522,
            "parameters": 22_715_526,
        },
        "tasks": tasks,
        "strategy": {
            "name": "full",
            "last_n": 2,
            "unfreeze_fraction": 0.1,
            "rank": 8,
            "alpha": 16.0,
            "layer_decay": 1.0,
            "head_lr_ratio": 1.0,
            "trained_parameters": 22_715_526,
        },
        "training": {
            "steps": 300,
            "tokens": 127_506,
            "seconds": 285.96,
            "tokens_per_second": 445.88,
            "examples_per_second": 34.466,
            "best_step": 300,
            "final_loss": 0.172,
            "stopped": None,
        },
    }
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "palavra.toml").write_text('model = "/models/minilm"\n')
    for name, content in ({"run": run, "evaluation": {"tasks": evaluated}} | files).items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return directory


def classification_run(directory: Path, classes: int = 6, **files: Any) -> Path:
    """A run of one task."""
    labels = {f"topic {number}": 1100 - 30 * number for number in range(classes)}
    task = task_run("task", "classification", {"examples": 4907, "labels": labels})
    splits = {"valid": classified(classes, 0), "test": classified(classes, 1)}
    evaluated = [{"name": "task", "kind": "classification", "selection_metric": "accuracy", "splits": splits}]
    return make_finetuning(directory, [task], evaluated, **files)


def several_tasks_run(directory: Path) -> Path:
    """A run of three tasks of different kinds."""
    targets = {name: {"lowest": 0.0, "mean": 2.51234, "highest": 5.0} for name in ("similarity", "fluency")}
    words = {"O": 170_000, "B-LOC": 7_140, "B-PER": 6_600, "B-ORG": 6_321}
    named = {"words": 203_621, "labels": words, "scheme": "bio", "spans": {"LOC": 7140, "PER": 6600, "ORG": 6321}}
    tasks = [task_run("topics", "classification", {"labels": {"a": 3, "b": 2}}),
             task_run("closeness", "regression", {"targets": targets}),
             task_run("names", "token-classification", named)]  # fmt: skip
    scores = {"topics": classified(6, 2), "closeness": regressed(), "names": labelled()}
    evaluated = [
        {"name": task["name"], "kind": task["kind"], "selection_metric": scores[task["name"]]["main"],
         "splits": dict.fromkeys(("valid", "test"), scores[task["name"]])}
        for task in tasks
    ]  # fmt: skip
    return make_finetuning(directory, tasks, evaluated)


def seeds_evaluation() -> Json:
    """evaluation.json of five seeds."""
    random = np.random.default_rng(4)
    rows = [
        {"name": f"seed-{number}", "directory": f"seed-{number}",
         "values": {f"task/{split}": {"accuracy": float(random.normal(0.95, 0.006)), "loss": 0.2}
                    for split in ("valid", "test")}}
        for number in range(5)
    ]  # fmt: skip
    of: Json = {"mean": 0.95, "std": 0.006, "low": 0.944, "high": 0.956, "runs": 5}
    loss = of | {"mean": 0.2, "std": None, "low": None, "high": None}
    summary = {f"task/{split}": {"accuracy": of, "loss": loss} for split in ("valid", "test")}
    tasks = [
        {
            "name": "task",
            "kind": "classification",
            "selection_metric": "accuracy",
            "splits": {"valid": classified(6, 0), "test": classified(6, 1)},
        }
    ]
    return {"tasks": tasks, "runs": {"over": "seeds", "best": "seed-3", "rows": rows, "summary": summary}}


def sweep_records() -> Json:
    """sweep.json of thirty trials, two of which came to nothing."""
    random = np.random.default_rng(6)
    trials = []
    for number in range(30):
        rate = float(10 ** random.uniform(-5.5, -3))
        params = {"optimizer.learning_rate": rate, "train.batch_size": int(random.choice([16, 32, 64])),
                  "strategy.name": str(random.choice(["full", "lora", "frozen"])),
                  "tasks.0.head.dropout": float(random.uniform(0, 0.4))}  # fmt: skip
        value = 0.95 - 0.05 * (np.log10(rate) + 4.2) ** 2 + float(random.normal(0, 0.005))
        trials.append(
            {
                "number": number,
                "state": "complete",
                "value": value,
                "params": params,
                "seconds": 40.0 + number,
                "evaluations": [value - 0.1, value],
            }
        )
    trials[7] |= {"state": "pruned", "value": None}
    trials[8] |= {"state": "failed", "value": None}
    best = max((trial for trial in trials if trial["value"] is not None), key=lambda trial: trial["value"])
    shares = {
        "optimizer.learning_rate": 0.71,
        "strategy.name": 0.2,
        "train.batch_size": 0.06,
        "tasks.0.head.dropout": 0.03,
    }
    return {"direction": "maximize", "metric": "accuracy", "trials": trials, "best": best["number"],
            "importances": shares}  # fmt: skip


def curve_records() -> Json:
    """learning_curve.json of two ways to learn."""
    series = []
    for name, shift in (("pretrained on 7 minutes of text", 0.0), ("from scratch", -0.18)):
        points = []
        for examples in (50, 100, 250, 500, 1000, 4907):
            score = 0.62 + shift + 0.09 * float(np.log10(examples))
            points.append({"examples": examples, "score": score, "low": score - 0.02, "high": score + 0.02})
        series.append({"name": name, "points": points})
    return {"metric": "accuracy", "series": series}
