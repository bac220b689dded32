"""Speed of pseudo-log-likelihood scoring, side by side with a plain loop over transformers, on one machine.

    python benchmarks/scoring.py            # the table, about a minute on 2 cores
    python benchmarks/scoring.py --quick    # fewer sentences

Needs `transformers` beside the package. Both sides load the same directory: a random ModernBERT, 256 wide, 4 layers,
vocabulary 32,000. Random sentences of 8 to 40 tokens, each token masked in turn, float32. The peer reads one masked
copy at a time ("loop"), and all copies of a sentence as one batch ("sentence"). The scores must be the same within
1e-3 nats.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from palavra.batch import Sample
from palavra.inference.scoring import labelled_losses
from palavra.model.compute import choose_compute
from palavra.model.directory import load_masked_model, save_model
from palavra.model.families import FAMILIES
from palavra.model.heads import MaskedLanguageModel

CLS, SEP, MASK = 2, 3, 4
Sentences = list[list[int]]


def copies(ids: list[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """[CLS] sentence [SEP] once for each token, which is masked."""
    rows = np.tile(np.array([CLS, *ids, SEP], dtype=np.int64), (len(ids), 1))
    rows[np.arange(len(ids)), np.arange(len(ids)) + 1] = MASK
    return rows


def palavra_side(directory: Path, sentences: Sentences) -> Callable[[], list[float]]:
    """Scores as `palavra score` does, apart from the tokenizer."""
    model, compute = load_masked_model(directory).model.eval(), choose_compute("cpu", "float32", "off")

    def run() -> list[float]:
        samples = [
            Sample(input_ids=row, label_rows=np.array([i + 1]), labels=np.array([ids[i]]))
            for ids in sentences
            for i, row in enumerate(copies(ids))
        ]
        losses = np.concatenate(labelled_losses(model, samples, compute))
        return [float(-part.sum()) for part in np.split(losses, np.cumsum([len(ids) for ids in sentences])[:-1])]

    return run


def peer_side(directory: Path, sentences: Sentences, batched: bool) -> Callable[[], list[float]]:
    """The straightforward loop."""
    model: Any = transformers.AutoModelForMaskedLM.from_pretrained(directory).eval()

    def one(ids: list[int]) -> float:
        rows, labels, place = torch.from_numpy(copies(ids)), torch.tensor(ids), torch.arange(len(ids))
        if batched:
            logits = model(rows).logits[place, place + 1]
        else:
            logits = torch.stack([model(row[None]).logits[0, i + 1] for i, row in enumerate(rows)])
        return float(torch.log_softmax(logits, -1)[place, labels].sum())

    def run() -> list[float]:
        with torch.inference_mode():
            return [one(ids) for ids in sentences]

    return run


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer sentences")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    lengths = random.integers(8, 41, 10 if arguments.quick else 50)
    sentences: Sentences = [random.integers(5, 32_000, length).tolist() for length in lengths]
    config = FAMILIES["modernbert"].new(vocab_size=32_000, hidden_size=256, num_layers=4, num_heads=4, context=128)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {arguments.threads} threads")
    with tempfile.TemporaryDirectory() as folder:
        save_model(MaskedLanguageModel(config), Path(folder), {"cls_token_id": CLS, "sep_token_id": SEP})
        sides = {
            "transformers, loop": peer_side(Path(folder), sentences, batched=False),
            "transformers, sentence": peer_side(Path(folder), sentences, batched=True),
            "palavra": palavra_side(Path(folder), sentences),
        }
        rates, scores = {}, {}
        for name, run in sides.items():
            run()
            begin = time.perf_counter()
            scores[name] = run()
            rates[name] = sum(map(len, sentences)) / (time.perf_counter() - begin)
    apart = max(abs(a - b) for a, b in zip(scores["transformers, loop"], scores["palavra"], strict=True))
    for name, rate in rates.items():
        print(f"{name:24} {rate:7.0f} tokens scored a second, palavra {rates['palavra'] / rate:5.2f} x")
    print(f"largest difference of a sentence's score: {apart:.1e} nats")


if __name__ == "__main__":
    main()
