"""load(): whatever a model directory holds, ready for use."""

from pathlib import Path
from typing import Any

from palavra.errors import PalavraError
from palavra.inference.causal import CausalModel
from palavra.inference.finetuned import FineTunedModel
from palavra.inference.masked import MaskedModel
from palavra.inference.mixed import MixedModel
from palavra.model.config import CompileMode, Precision
from palavra.model.directory import learned_both, read_config
from palavra.tasks.saved_model import is_task_directory


def load(
    directory: str | Path, *, device: str = "auto", precision: Precision = "float32", compile: CompileMode = "off"
) -> Any:
    """Load a model directory written by Palavra or `transformers`: a `MaskedModel`, ready to fill, embed and score, a
    `CausalModel`, ready to generate and score, a `MixedModel`, which does both, or a `FineTunedModel`, ready to
    predict. Asked for what its kind does not do, a model raises PalavraError and says what to use instead."""
    path = Path(directory)
    if not path.is_dir():
        raise PalavraError(f"{path} is not a folder: give the folder of a model (it holds config.json)")
    if is_task_directory(path):
        return FineTunedModel.load(path, device=device, precision=precision, compile=compile)
    if read_config(path).causal:
        return CausalModel.load(path, device=device, precision=precision, compile=compile)
    kind = MixedModel if learned_both(path) else MaskedModel
    return kind.load(path, device=device, precision=precision, compile=compile)
