"""Where and how the arithmetic is done: chosen once, written in the run's log."""

import ctypes
import shutil
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import nn
from torch.fx.experimental import _config as symbolic_shapes

from palavra.errors import PalavraError
from palavra.model.config import CompileMode, Precision
from palavra.model.layers import Layer
from palavra.model.layouts import BACKENDS, Backend, choose_backend


@dataclass(frozen=True, kw_only=True)
class Compute:
    """`device`; `dtype` of the matrix products (parameters stay float32); the attention `backend`; whether
    layers are `compiled`; and `reasons`, one line each, for the log."""

    device: torch.device
    dtype: torch.dtype
    backend: Backend
    compiled: bool
    reasons: tuple[str, ...]

    @property
    def precision(self) -> Precision:
        """What was chosen, as a recipe says it."""
        return "bfloat16" if self.dtype == torch.bfloat16 else "float32"

    @property
    def compile(self) -> CompileMode:
        """What was chosen, as a recipe says it."""
        return "on" if self.compiled else "off"

    def autocast(self) -> AbstractContextManager[None]:
        """Run matrix products in `dtype`."""
        enabled = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled)

    def synchronize(self) -> None:
        """Wait until the device has done all that was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def choose_compute(
    device: str = "auto",
    precision: Precision = "auto",
    compiled: CompileMode = "auto",
    worth_compiling: bool = True,
) -> Compute:
    """Choose device, precision, attention and compilation for this machine.

    `worth_compiling` is what "auto" falls back on where a compiler is there: a short run does not earn it back.
    Raises PalavraError for a device or precision that this machine does not have.
    """
    place = _device(device)
    dtype, why = _dtype(place, precision)
    backend = choose_backend(place, dtype)
    compiles, why_compile = _compiles(place, compiled, worth_compiling)
    reasons = (
        f"device: {place}",
        f"precision: {why}",
        f"attention: {backend.name}",
        f"compile: {why_compile}",
    )
    return Compute(device=place, dtype=dtype, backend=backend, compiled=compiles, reasons=reasons)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise PalavraError(f"train.device {name!r} is not a device: use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise PalavraError("train.device is cuda, but torch sees no CUDA device here: use cpu or auto")
    return device


def for_dropout(compute: Compute, attention_dropout: float) -> Compute:
    """The same choices, with attention that can drop weights where the model asks for it: the variable-length
    kernel cannot."""
    if not attention_dropout or compute.backend.name != "varlen":
        return compute
    rows = BACKENDS["rows"]
    return replace(compute, backend=rows, reasons=(*compute.reasons, "attention: rows, for its dropout"))


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products run in hardware (AVX512-BF16 or AMX on CPUs, Ampere and later GPUs)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _dtype(device: torch.device, precision: Precision) -> tuple[torch.dtype, str]:
    if precision != "auto":
        return (torch.bfloat16 if precision == "bfloat16" else torch.float32), f"{precision} (asked for)"
    if has_fast_bfloat16(device):
        return torch.bfloat16, "bfloat16 products, float32 parameters and sums (in hardware here)"
    return torch.float32, "float32 (no bfloat16 hardware here)"


def _compiles(device: torch.device, choice: CompileMode, worth_it: bool) -> tuple[bool, str]:
    if choice == "off":
        return False, "off (asked for)"
    if device.type == "cuda":
        compiler = "triton" if find_spec("triton") else None
    else:
        compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return False, "off (no C++ compiler found: install g++ for faster training)"
    if choice == "auto" and not worth_it:
        return False, "off (a run this short would not earn the compilation back)"
    return True, f"on ({compiler.rsplit('/', 1)[-1]})"


def compile_layers(layers: nn.ModuleList, compute: Compute) -> None:
    """Compile the two programs of a layer where `compute` says so. All layers share them, whatever the number of
    tokens; evaluation goes on uncompiled under `eager`."""
    if not compute.compiled:
        return
    # Sizes that are equal in the first batch, such as those of its rows and of half a head, are not equal in all: a
    # program that took them for one and the same would be compiled again, for many seconds, in the midst of training.
    symbolic_shapes.use_duck_shape = False
    for layer in layers:
        assert isinstance(layer, Layer)
        layer.compiled = True
        for module, name in _programs(layer):
            # Set on the instance: a compiled function is the layer's own affair, not part of its parameters.
            program = torch.compile(cast(Any, getattr(module, name)), dynamic=True)
            object.__setattr__(module, name, program)


def forget_compiled(layer: Layer) -> None:
    """Let a copy of a layer compute by itself: a compiled program goes on computing with what it was compiled for."""
    layer.compiled = False
    for module, name in _programs(layer):
        module.__dict__.pop(name, None)


def _programs(layer: Layer) -> tuple[tuple[nn.Module, str], ...]:
    return (layer.attention, "forward"), (layer, "finish")


def eager() -> AbstractContextManager[object]:
    """Run compiled parts uncompiled: for evaluation, whose shapes and gradients are not training's."""
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def keep_freed_memory(compute: Compute) -> None:
    """Let the C library keep what is freed for what is asked for next, where it is glibc and the device a CPU.

    Every step of training frees and asks for the same large buffers. Given back to the system each time, they
    come back as thousands of empty pages, which one thread clears while the others wait.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None and compute.device.type == "cpu":
        trim_threshold, mmap_threshold = -1, -3  # names of parameters in malloc.h
        mallopt(trim_threshold, -1)
        mallopt(mmap_threshold, 2**30)


def matmul_peak(compute: Compute, seconds: float = 0.3) -> float:
    """The rate (floating-point operations a second) of a large square matrix product, measured here and now."""
    import time

    size = 8192 if compute.device.type == "cuda" else 1024
    a = torch.randn(size, size, device=compute.device, dtype=compute.dtype)
    for _ in range(3):
        a @ a
    compute.synchronize()
    best, end = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        a @ a
        compute.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - begin))
    return best
