"""load(): whatever a model directory holds, ready for use."""

from pathlib import Path
from typing import Literal, TypeAlias, TypedDict, Unpack, overload

from palavra.errors import PalavraError
from palavra.inference.base import model_folder
from palavra.inference.causal import CausalModel
from palavra.inference.finetuned import FineTunedModel
from palavra.inference.masked import MaskedModel
from palavra.inference.mixed import MixedModel
from palavra.model.config import CompileMode, Precision
from palavra.model.directory import learned_both, read_config
from palavra.tasks.saved_model import is_task_directory

Model: TypeAlias = MaskedModel | CausalModel | MixedModel | FineTunedModel
ModelKind = Literal["masked", "causal", "masked+causal", "fine-tuned"]
_CLASSES: dict[str, type[MaskedModel] | type[CausalModel] | type[FineTunedModel]] = {
    "masked": MaskedModel,
    "causal": CausalModel,
    "masked+causal": MixedModel,
    "fine-tuned": FineTunedModel,
}


class ComputeOptions(TypedDict, total=False):
    """How a loaded model computes: `device` auto, cpu or cuda, `precision` and whether to `compile`."""

    device: str
    precision: Precision
    compile: CompileMode


@overload
def load(directory: str | Path, *, kind: None = None, **options: Unpack[ComputeOptions]) -> Model: ...


@overload
def load(directory: str | Path, *, kind: Literal["masked"], **options: Unpack[ComputeOptions]) -> MaskedModel: ...


@overload
def load(directory: str | Path, *, kind: Literal["causal"], **options: Unpack[ComputeOptions]) -> CausalModel: ...


@overload
def load(directory: str | Path, *, kind: Literal["masked+causal"], **options: Unpack[ComputeOptions]) -> MixedModel: ...


@overload
def load(
    directory: str | Path, *, kind: Literal["fine-tuned"], **options: Unpack[ComputeOptions]
) -> FineTunedModel: ...


def load(directory: str | Path, *, kind: ModelKind | None = None, **options: Unpack[ComputeOptions]) -> Model:
    """Load a model directory of Palavra or `transformers`: a `MaskedModel` (fill, embed, score), a `CausalModel`
    (generate, score), a `MixedModel` (both), or a `FineTunedModel` (predict).

    With `kind` the directory must hold that kind, and an editor knows what the model can do. Raises PalavraError for
    another kind. A model that is asked for what its kind does not do raises PalavraError and says what to use instead.
    """
    path = model_folder(directory)
    if is_task_directory(path):
        loaded: type[MaskedModel] | type[CausalModel] | type[FineTunedModel] = FineTunedModel
    elif read_config(path).causal:
        loaded = CausalModel
    else:
        loaded = MixedModel if learned_both(path) else MaskedModel
    if kind is not None and kind not in _CLASSES:
        raise PalavraError(f"kind= is {kind!r}: use one of {', '.join(map(repr, _CLASSES))}")
    if kind is not None and not issubclass(loaded, _CLASSES[kind]):
        raise PalavraError(f"{path} holds {loaded.kind}, not {_CLASSES[kind].kind}: leave --kind out or change it")
    return loaded.load(path, **options)
