"""The layers of sentence-transformers that follow the pooling: they map the vectors of texts (S, D) to (S, D')."""

from typing import Annotated, Any, ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from palavra.errors import PalavraError
from palavra.model.config import LARGEST_HIDDEN
from palavra.typed_json import Bounds

Width = Annotated[int, Bounds(1, LARGEST_HIDDEN)]
# Known by name: an activation is never imported from what a file says.
ACTIVATIONS: dict[str, type[nn.Module]] = {
    kind.__name__: kind
    for kind in (
        nn.ELU, nn.GELU, nn.Hardswish, nn.Hardtanh, nn.Identity, nn.LeakyReLU, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU,
        nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Tanh,
    )
}  # fmt: skip
_TORCH = "torch.nn."


class VectorLayer(nn.Module):
    """The base of these layers. `inputs` and `outputs` are the widths D and D', or None for any."""

    kind: ClassVar[str]
    inputs: int | None = None
    outputs: int | None = None

    def settings(self) -> dict[str, Any]:
        """Return the content of the layer's `config.json`."""
        return {}


class Normalize(VectorLayer):
    """Scale each vector to length 1."""

    kind = "Normalize"

    def forward(self, x: Tensor) -> Tensor:
        """x (S, D) -> (S, D)."""
        return F.normalize(x, dim=-1)


class LayerNorm(VectorLayer):
    """Layer normalization of each vector."""

    kind = "LayerNorm"

    def __init__(self, width: int):
        super().__init__()
        self.inputs = self.outputs = width
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """x (S, D) -> (S, D)."""
        out: Tensor = self.norm(x)
        return out

    def settings(self) -> dict[str, Any]:
        """Return the content of the layer's `config.json`."""
        return {"dimension": self.inputs}


class Dense(VectorLayer):
    """A linear layer with an activation, and with `residual` a second path around both."""

    kind = "Dense"

    def __init__(self, inputs: int, outputs: int, bias: bool, activation: str | None, residual: bool):
        """`activation` is a class of torch by its full name, or None. Raises PalavraError for any but the known
        ones."""
        super().__init__()
        self.inputs, self.outputs, self._residual = inputs, outputs, residual
        known = ACTIVATIONS.get((activation or _TORCH + "Identity").rpartition(".")[2])
        if known is None or not (activation or _TORCH).startswith(_TORCH):
            raise PalavraError(f"activation_function {activation} is not supported; known: {', '.join(ACTIVATIONS)}")
        self.linear = nn.Linear(inputs, outputs, bias=bias)
        self.activation = known()
        if residual and inputs != outputs:
            self.residual = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (S, D) -> (S, D')."""
        out: Tensor = self.activation(self.linear(x))
        if self._residual:
            out = out + (x if self.inputs == self.outputs else self.residual(x))
        return out

    def settings(self) -> dict[str, Any]:
        """Return the content of the layer's `config.json`."""
        kind = type(self.activation)
        values = {
            "in_features": self.inputs,
            "out_features": self.outputs,
            "bias": self.linear.bias is not None,
            "activation_function": f"{kind.__module__}.{kind.__name__}",
        }
        return values | ({"use_residual": True} if self._residual else {})
