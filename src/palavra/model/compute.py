"""The device, precision, attention backend and compilation of a run: chosen once and written to its log."""

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
from palavra.model.cpu_threads import share_cores
from palavra.model.layers import Layer
from palavra.model.layouts import BACKENDS, Backend, choose_backend


@dataclass(frozen=True, kw_only=True)
class Compute:
    """How to compute: `device`, `dtype` of the matrix products (parameters stay float32), attention `backend`, whether
    layers are `compiled`, and the `reasons`, one line each, for the log."""

    device: torch.device
    dtype: torch.dtype
    backend: Backend
    compiled: bool
    reasons: tuple[str, ...]

    @property
    def precision(self) -> Precision:
        """The choice, as a recipe writes it."""
        return "bfloat16" if self.dtype == torch.bfloat16 else "float32"

    @property
    def compile(self) -> CompileMode:
        """The choice, as a recipe writes it."""
        return "on" if self.compiled else "off"

    def autocast(self) -> AbstractContextManager[None]:
        """Run matrix products in `dtype`."""
        enabled = self.dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=enabled)

    def synchronize(self) -> None:
        """Wait until the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def choose_compute(
    device: str = "auto", precision: Precision = "auto", compiled: CompileMode = "auto", worth_compiling: bool = True
) -> Compute:
    """Choose device, precision, attention and compilation for this machine.

    `worth_compiling` decides for "auto" if there is a compiler: in a short run, compiling takes longer than it saves.
    From here on, threads on a CPU share its cores with other programs (`cpu_threads`). Raises PalavraError for
    a device that this machine does not have.
    """
    place = _device(device)
    if place.type == "cpu":
        share_cores()
    dtype, why = _dtype(place, precision)
    backend = choose_backend(place, dtype)
    compiles, why_compile = _compiles(place, compiled, worth_compiling)
    reasons = (f"device: {place}", f"precision: {why}", f"attention: {backend.name}", f"compile: {why_compile}")
    return Compute(device=place, dtype=dtype, backend=backend, compiled=compiles, reasons=reasons)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise PalavraError(f"the device {name!r} is unknown: use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise PalavraError("the device is cuda, but torch sees no CUDA device here: use cpu or auto")
    return device


def for_attention(compute: Compute, *, dropout: float = 0.0, relative: bool = False) -> Compute:
    """Return the same choices with a backend that supports attention `dropout` and scores with a term for the distance
    of tokens (`relative`); the variable-length kernel has neither."""
    if compute.backend.name != "varlen" or not (dropout or relative):
        return compute
    reason = f"attention: rows, for its {'dropout' if dropout else 'relative positions'}"
    return replace(compute, backend=BACKENDS["rows"], reasons=(*compute.reasons, reason))


def has_fast_bfloat16(device: torch.device) -> bool:
    """Return whether bfloat16 products run in hardware (AVX512-BF16 or AMX on CPUs, Ampere and later on GPUs)."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _dtype(device: torch.device, precision: Precision) -> tuple[torch.dtype, str]:
    if precision != "auto":
        return (torch.bfloat16 if precision == "bfloat16" else torch.float32), f"{precision} (requested)"
    if has_fast_bfloat16(device):
        return torch.bfloat16, "bfloat16 products, float32 parameters and sums (in hardware here)"
    return torch.float32, "float32 (no bfloat16 hardware here)"


def _compiles(device: torch.device, choice: CompileMode, worth_it: bool) -> tuple[bool, str]:
    if choice == "off":
        return False, "off (requested)"
    triton = "triton" if find_spec("triton") else None
    compiler = triton if device.type == "cuda" else shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return False, "off (no C++ compiler found: install g++ for faster training)"
    if choice == "auto" and not worth_it:
        return False, "off (compiling would take longer than it saves in a run this short)"
    return True, f"on ({compiler.rsplit('/', 1)[-1]})"


def compile_layers(layers: nn.ModuleList, compute: Compute) -> None:
    """Compile the two programs of a layer if `compute` says so; all layers and numbers of tokens share them. Evaluation
    runs uncompiled, under `eager`."""
    if not compute.compiled:
        return
    # Sizes that happen to be equal in the first batch, such as those of its rows and of half a head, differ in others.
    # A program that assumed one size for both would be compiled again during training, for many seconds.
    symbolic_shapes.use_duck_shape = False
    for layer in layers:
        assert isinstance(layer, Layer)
        layer.compiled = True
        for module, name in _programs(layer):
            # Set on the instance, past `nn.Module`: a compiled function is not one of the layer's parameters.
            object.__setattr__(module, name, torch.compile(cast(Any, getattr(module, name)), dynamic=True))


def forget_compiled(layer: Layer) -> None:
    """Undo compilation in a copy of a layer: the compiled program would use the original's parameters."""
    layer.compiled = False
    for module, name in _programs(layer):
        module.__dict__.pop(name, None)


def _programs(layer: Layer) -> tuple[tuple[nn.Module, str], ...]:
    return (layer.attention, "forward"), (layer, "finish")


def eager() -> AbstractContextManager[object]:
    """Run compiled parts uncompiled: evaluation has other shapes and gradients than training."""
    return torch.compiler.set_stance("force_eager")  # type: ignore[no-any-return]


def keep_freed_memory(compute: Compute) -> None:
    """Make glibc keep freed memory for the next allocation, if the device is a CPU.

    Every training step frees and allocates the same large buffers. If they went back to the system, they would return
    as thousands of pages that one thread clears while the others wait.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None and compute.device.type == "cpu":
        trim_threshold, mmap_threshold = -1, -3  # names of parameters in malloc.h
        mallopt(trim_threshold, -1)
        mallopt(mmap_threshold, 2**30)


def matmul_peak(compute: Compute, seconds: float = 0.3) -> float:
    """Measure the floating-point operations a second of a large square matrix product on this machine."""
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
