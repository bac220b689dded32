"""Speed of cached generation, side by side with `generate` of transformers, in one process on one machine.

    python benchmarks/generation.py            # the table, about a minute on 2 cores
    python benchmarks/generation.py --quick    # one round

Needs `transformers` beside the package. Both sides load the same directory: a random Llama, 256 wide, 4 layers,
vocabulary 32,000. Greedy, float32, key-value cache, prompts of 32 tokens, 128 new ones, batches of 1 and 8. Sides take
turns; a round measures each once, after a warm-up; the table has the medians. The tokens must be the same.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from palavra.inference.generation import GenerationConfig, Generator
from palavra.inference.sampling import SamplingConfig
from palavra.model.cache import StepModel
from palavra.model.compute import choose_compute
from palavra.model.directory import load_causal_model, save_model
from palavra.model.families import FAMILIES
from palavra.model.heads import CausalLanguageModel

PROMPT, NEW = 32, 128
Tokens = list[list[int]]


def palavra_side(directory: Path, prompts: Tokens) -> Callable[[], Tokens]:
    """Generates as `palavra generate` does."""
    steps = StepModel(load_causal_model(directory).model.eval(), choose_compute("cpu", "float32", "off"))
    config = GenerationConfig(max_tokens=NEW, sampling=SamplingConfig(temperature=0))

    def run() -> Tokens:
        rows: Tokens = [[] for _ in prompts]
        for step in Generator(steps, prompts, config):
            for row, token in step:
                rows[row].append(token)
        return rows

    return run


def peer_side(directory: Path, prompts: Tokens) -> Callable[[], Tokens]:
    """Generates with `model.generate`; prompts are of one length, so it needs no padding."""
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(directory).eval()
    ids = torch.tensor(prompts)

    def run() -> Tokens:
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip
        found: Tokens = out[:, ids.shape[1] :].tolist()
        return found

    return run


def rate(run: Callable[[], Tokens]) -> float:
    """Tokens a second."""
    begin = time.perf_counter()
    tokens = sum(map(len, run()))
    return tokens / (time.perf_counter() - begin)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.utils.logging.set_verbosity_error()
    torch.manual_seed(0)
    config = FAMILIES["llama"].new(vocab_size=32_000, hidden_size=256, num_layers=4, num_heads=4, context=256)
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {arguments.threads} threads")
    print(f"{'batch':>5} {'transformers':>13} {'palavra':>9}  tokens/s (median)")
    with tempfile.TemporaryDirectory() as folder:
        save_model(CausalLanguageModel(config), Path(folder), {"bos_token_id": 1, "eos_token_id": None})
        for batch in (1, 8):
            prompts: Tokens = np.random.default_rng(0).integers(5, 32_000, (batch, PROMPT)).tolist()
            sides = [make(Path(folder), prompts) for make in (peer_side, palavra_side)]
            if (first := [side() for side in sides])[0] != first[1]:
                print(f"batch {batch}: the two sides do not agree on every token")
            rates = [[rate(side) for side in sides] for _ in range(1 if arguments.quick else 5)]
            peer, own = (statistics.median(each) for each in zip(*rates, strict=True))
            print(f"{batch:>5} {peer:>13.0f} {own:>9.0f}  {own / peer:.2f} x")


if __name__ == "__main__":
    main()
