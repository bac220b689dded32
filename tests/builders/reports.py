"""Records of finished runs without weights, and what a page is made of."""

import json
import math
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

ATTACK = "</p><script>alert('palavra')</script><img src=https://example.org/x.png onerror=alert(1)>"
RECIPE = """[data]
sources = ["reviews/*.csv.bz2"]
column = "text"
valid_fraction = 0.05

[model]
family = "modernbert"
layers = 2
width = 128

[train]
steps = 1400
batch_tokens = 2048
learning_rate = 3e-3
"""
RUN: dict[str, Any] = {
    "palavra": "0.1.0",
    "environment": {
        "python": "3.11.9",
        "torch": "2.13.0",
        "platform": "Linux-6.8-x86_64",
        "processor": "AMD EPYC 9R14",
        "cores": 2,
        "threads": 2,
        "device": "cpu",
        "precision": "bfloat16",
        "attention": "batched",
        "compile": True,
    },
    "model": {
        "family": "modernbert",
        "objective": "masked",
        "num_layers": 2,
        "hidden_size": 128,
        "num_heads": 2,
        "intermediate_size": 192,
        "vocab_size": 4096,
        "context": 64,
        "parameters": 819_456,
        "parameters_without_embeddings": 295_168,
    },
    "data": {
        "sources": ["rotten_tomatoes_corpus_full.csv.bz2"],
        "documents": 13_906,
        "tokens": 612_455,
        "bytes": 2_540_117,
        "duplicates": 37,
        "empty": 2,
        "train_documents": 13_189,
        "train_tokens": 581_202,
        "valid_documents": 680,
        "valid_tokens": 31_253,
        "warnings": ["2 empty documents were left out (first: reviews.csv:318)"],
        "longest_document": 1_204,
        "mean_tokens": 44.04,
    },
    "packing": {
        "efficiency": 0.9934,
        "pieces": 15_022,
        "cut_documents": 1_102,
        "context": 64,
        "batch_tokens": 2048,
    },
    "budget": {
        "minutes": 3.0,
        "rule": [
            "This machine multiplies bfloat16 matrices at 1.21 TFLOP/s (median of 5).",
            "Each size was run for 12 steps; its tokens per second give the steps that fit into 3 minutes.",
            "The size with the least predicted loss was chosen.",
        ],
        "candidates": [
            {
                "size": size,
                "parameters": parameters,
                "tokens_per_second": speed,
                "tokens": 180.0 * speed,
                "steps": steps,
                "predicted_loss": loss,
                "chosen": size == "micro",
            }
            for size, parameters, speed, steps, loss in (
                ("nano", 120_000, 41_210.0, 3622, 3.91),
                ("micro", 295_168, 15_940.0, 1400, 3.55),
                ("mini", 1_200_000, 4_812.0, 423, 4.4),
                ("small", 5_000_000, 901.0, 79, 5.1),
            )
        ],
    },
    "training": {
        "steps": 1400,
        "tokens": 2_867_200,
        "seconds": 184.3,
        "tokens_per_second": 15_557.0,
        "best_step": 1400,
        "final_loss": 3.512,
        "stopped": None,
    },
}
EVALUATION: dict[str, Any] = {
    "corruption": {
        "mask_rate": 0.15,
        "final_mask_rate": None,
        "mask": 0.8,
        "random": 0.1,
        "unit": "token",
        "span_words": 3.0,
        "seed": 15,
        "drawn": "document",
    },
    "tokens": 4_688,
    "loss": 3.5421,
    "perplexity": 34.54,
    "accuracy": 0.3764,
    "accuracy_at_5": 0.5721,
    "bands": [
        {"band": "1-100", "tokens": 2301, "accuracy": 0.598, "accuracy_at_5": 0.861, "loss": 1.702},
        {"band": "101-500", "tokens": 934, "accuracy": 0.243, "accuracy_at_5": 0.452, "loss": 4.31},
        {"band": "501-1000", "tokens": 502, "accuracy": 0.141, "accuracy_at_5": 0.278, "loss": 5.62},
        {"band": "1001-2000", "tokens": 488, "accuracy": 0.09, "accuracy_at_5": 0.171, "loss": 6.33},
        {"band": "2001-4096", "tokens": 463, "accuracy": 0.041, "accuracy_at_5": 0.093, "loss": 7.48},
    ],
}
EXAMPLES: list[dict[str, Any]] = [
    {
        "text": "one of the [MASK] movies of the year",
        "fills": [
            [
                {"token": "best", "probability": 0.6412},
                {"token": "most", "probability": 0.0871},
                {"token": "worst", "probability": 0.0618},
                {"token": "funniest", "probability": 0.0204},
                {"token": "great", "probability": 0.0112},
            ]
        ],
    },
    {
        "text": "the [MASK] is well acted but the [MASK] is far too long .",
        "fills": [
            [{"token": "film", "probability": 0.352}, {"token": "movie", "probability": 0.298}],
            [{"token": "film", "probability": 0.201}, {"token": "plot", "probability": 0.083}],
        ],
    },
    {
        "text": f"a {ATTACK} [MASK] .",
        "fills": [[{"token": "<b>bold</b>", "probability": 0.051}, {"token": "\n", "probability": 1e-6}]],
    },
]


def metric_lines(steps: int, every: int) -> list[dict[str, Any]]:
    """A plausible run: warm-up, decay, a loss that falls with noise, and validation at tenths of the way."""
    noise = np.random.default_rng(5)
    lines: list[dict[str, Any]] = []
    for step in range(every, steps + 1, every):
        done = step / steps
        loss = 3.4 + 4.9 * math.exp(-9 * done) + 0.5 * (1 - done) + noise.normal(0, 0.09)
        speed = 15_800 * (1 + noise.normal(0, 0.02)) * (0.7 if noise.random() < 0.03 else 1)
        train = {"kind": "train", "step": step, "loss": loss}
        train |= {"learning_rate": 3e-3 * min(step / (0.08 * steps), (1 - done) / 0.92)}
        train |= {"gradient_norm": 0.4 + 2 * math.exp(-20 * done) * noise.lognormal(0, 0.3)}
        train |= {"tokens": step * 2048, "tokens_per_second": speed, "peak_share": speed / 36_000}
        train |= {"mask_rate": 0.3 - 0.15 * done, "packing_efficiency": 0.994 + noise.normal(0, 0.003)}
        lines.append(train | {"seconds": step * 2048 / 15_800})
        if step * 10 // steps != (step - every) * 10 // steps:
            valid = {"kind": "valid", "step": step, "loss": loss + 0.05, "perplexity": math.exp(loss + 0.05)}
            valid |= {"accuracy": 0.377 * done**0.4, "accuracy_at_5": 0.573 * done**0.35, "tokens": 4688}
            lines.append(valid | {"seconds": step * 2048 / 15_800})
    return lines


def make_run(directory: Path, *, steps: int = 1400, every: int = 10) -> Path:
    """A finished run's records, without weights."""
    directory.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = [{"kind": "event", "step": 0, "message": "compiled in 21 s"}]
    lines += metric_lines(steps, every)
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "palavra.toml").write_text(RECIPE)
    for name, value in (("run", RUN), ("evaluation", EVALUATION), ("examples", EXAMPLES)):
        (directory / f"{name}.json").write_text(json.dumps(value))
    return directory


class Structure(HTMLParser):
    """What a page is made of; fails on a tag that is closed out of order."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> is out of order"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]
