"""What the report says about a run besides its curves: environment, model, data."""

import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from palavra.data.shards import Manifest
from palavra.model.compute import Compute
from palavra.run.budget import Candidate, parameters_without_embeddings
from palavra.run.pretraining import Pretraining


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
            "objective": job.recipe.objective,
            "layers": config.layers,
            "width": config.width,
            "heads": config.heads,
            "intermediate": config.intermediate,
            "vocab_size": config.vocab_size,
            "context": config.context,
            "parameters": sum(p.numel() for p in job.model.parameters()),
            "parameters_without_embeddings": parameters_without_embeddings(job.model),
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
