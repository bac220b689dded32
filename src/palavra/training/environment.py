"""The machine and the versions of a run."""

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from palavra.model.compute import Compute
from palavra.model.config import ModelConfig


def processor_name() -> str:
    """Return the processor's model name, or its architecture if the name is unknown."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def shape_of(config: ModelConfig) -> dict[str, Any]:
    """Return family, sizes and context of a model for `run.json`."""
    names = ("family", "num_layers", "hidden_size", "num_heads", "vocab_size", "context")
    return {name: getattr(config, name) for name in names}


def environment(compute: Compute, matmul_peak: float) -> dict[str, Any]:
    """Return versions, machine, precision, attention and compilation for `run.json`."""
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
