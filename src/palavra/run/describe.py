"""What the report says about a run besides its curves: environment, model, data, examples."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from palavra.data.shards import Corpus, Manifest
from palavra.model.compute import Compute
from palavra.run.budget import Candidate, parameters_without_embeddings
from palavra.run.pretraining import Pretraining
from palavra.tokenizer import Tokenizer

EXAMPLES = 8
EXAMPLES_LOOKED_AT = 1000
LONGEST_EXAMPLE = 40


def processor_name() -> str:
    """The processor's model name where the system tells it, its architecture elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def environment(compute: Compute, matmul_peak: float) -> dict[str, Any]:
    """Versions, machine and the choices of arithmetic."""
    return {
        "palavra": version("palavra"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(compute.device),
        "precision": str(compute.dtype).removeprefix("torch."),
        "attention": compute.backend.name,
        "compile": compute.compiled,
        "matrix product peak (GFLOP/s)": round(matmul_peak / 1e9),
    }


def describe_run(
    job: Pretraining, manifest: Manifest, rule: Sequence[str], candidates: Sequence[Candidate]
) -> dict[str, Any]:
    """The content of `run.json` before training."""
    config = job.model.config
    return {
        "palavra": version("palavra"),
        "environment": environment(job.compute, job.matmul_peak),
        "model": {
            "family": config.family,
            "layers": config.layers,
            "width": config.width,
            "heads": config.heads,
            "intermediate": config.intermediate,
            "vocab_size": config.vocab_size,
            "context": config.context,
            "parameters": sum(p.numel() for p in job.model.parameters()),
            "parameters_without_embeddings": parameters_without_embeddings(config),
        },
        "data": manifest.summary(),
        "budget": {
            "minutes": job.recipe.train.minutes,
            "rule": list(rule),
            "candidates": [
                {**asdict(c), "steps": int(c.tokens / (job.recipe.train.batch_tokens or 1))} for c in candidates
            ],
        },
    }


def example_texts(corpus: Corpus, tokenizer: Tokenizer, context: int) -> list[str]:
    """Short held-out (or else training) documents with one whole word replaced by the mask."""
    documents = corpus.valid if len(corpus.valid) else corpus.train
    found: list[str] = []
    longest = min(LONGEST_EXAMPLE, context - 2)
    for index in range(min(len(documents), EXAMPLES_LOOKED_AT)):
        length = int(documents.lengths[index])
        ids = documents.tokens(index, 0, min(length, longest)).tolist()
        starts = [i for i, token in enumerate(ids) if tokenizer.starts_word[token]]
        if len(starts) < 5:
            continue
        # The word in the middle: seldom a name, never the first.
        middle = len(starts) // 2
        begin, end = starts[middle], starts[middle + 1]
        text = f"{tokenizer.decode(ids[:begin])} {tokenizer.mask_token}{tokenizer.decode(ids[end:])}"
        one_line = "\n" not in text and text.count(tokenizer.mask_token) == 1
        # Encoded anew, a text cut in the middle of a word may need another token or two.
        if one_line and end - begin == 1 and len(tokenizer.encode_prompt(text)) <= context - 2:
            found.append(text)
        if len(found) == EXAMPLES:
            break
    return found
