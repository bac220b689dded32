"""Each optimizer is torch's own, with the parameters sorted into its groups."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from builders.models import build_model, model_config
from torch import Tensor, nn

from palavra.errors import PalavraError
from palavra.training.config import OptimizerConfig, OptimizerName
from palavra.training.optimizers import OPTIMIZERS, Optimizers, build_optimizers

Build = Callable[[list[nn.Parameter]], torch.optim.Optimizer]


class Small(nn.Module):
    """A matrix, a vector and a matrix in a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(5, 4))
        self.bias = nn.Parameter(torch.randn(4))
        self.layers = nn.ModuleList([nn.Linear(4, 6)])


def model_and(name: OptimizerName, **changes: Any) -> tuple[nn.Module, Optimizers]:
    torch.manual_seed(0)
    model = nn.ModuleDict({"transformer": Small()})
    return model, build_optimizers(model.named_parameters(), OptimizerConfig(name=name, **changes))


def set_gradients(model: nn.Module, step: int) -> None:
    torch.manual_seed(100 + step)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)


def drive(model: nn.Module, optimizers: Optimizers, first: int, last: int, rates: bool = True) -> None:
    for step in range(first, last):
        set_gradients(model, step)
        if rates:
            optimizers.set_rate(1 / (1 + step))
        optimizers.step()


DIRECT: dict[OptimizerName, Build] = {
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.98), eps=1e-8),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.01, betas=(0.9, 0.98), eps=1e-8),
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.95),
    "adagrad": lambda groups: torch.optim.Adagrad(groups, lr=0.01, eps=1e-8),
}


@pytest.mark.parametrize("name", DIRECT)
def test_each_equals_torchs_own(name: OptimizerName) -> None:
    model, optimizers = model_and(name, learning_rate=0.01, weight_decay=0.1)
    twin = copy.deepcopy(model)
    matrices = [p for p in twin.parameters() if p.ndim == 2]
    vectors = [p for p in twin.parameters() if p.ndim == 1]
    groups: Any = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    direct = DIRECT[name](groups)
    for step in range(5):
        set_gradients(twin, step)
        for group in direct.param_groups:
            group["lr"] = 0.01 / (1 + step)
        direct.step()
    drive(model, optimizers, 0, 5)
    for found, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


def test_muon_moves_the_matrices_of_the_layers_and_adamw_the_rest() -> None:
    model, optimizers = model_and("muon", learning_rate=0.02, weight_decay=0.1, adamw_lr_ratio=0.5)
    twin = copy.deepcopy(model)
    named = dict(twin.named_parameters())
    hidden = named.pop("transformer.layers.0.weight")
    muon: Any = torch.optim.Muon([hidden], lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    rest: Any = [
        {"params": [p for p in named.values() if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in named.values() if p.ndim == 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(rest, lr=0.01, betas=(0.9, 0.98))
    for step in range(3):
        set_gradients(twin, step)
        muon.step()
        adamw.step()
    drive(model, optimizers, 0, 3, rates=False)
    for found, expected in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("family", ["modernbert", "bert"])
def test_muon_takes_every_matrix_of_the_layers_of_a_model_and_nothing_else(family: str) -> None:
    model = build_model(model_config(family))
    muon, adamw = build_optimizers(model.named_parameters(), OptimizerConfig(name="muon")).members
    names = {id(p): name for name, p in model.named_parameters()}
    taken = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    layers = ("attention.qkv", "attention.out", "mlp.up", "mlp.down")
    assert taken == {f"transformer.layers.{i}.{part}.weight" for i in range(2) for part in layers}
    others = {names[id(p)] for group in adamw.param_groups for p in group["params"]}
    assert taken | others == set(names.values())
    assert not taken & others


def test_adam_equals_a_hand_loop_in_float64() -> None:
    """Kingma and Ba 2015, algorithm 1."""
    theta = nn.Parameter(torch.tensor([[0.5, -1.0, 2.0]], dtype=torch.float64))
    config = OptimizerConfig(name="adam", learning_rate=0.01, weight_decay=0.0, beta1=0.9, beta2=0.98)
    optimizers = build_optimizers([("theta", theta)], config)
    by_hand, m, v = theta.detach().clone()[0].tolist(), [0.0] * 3, [0.0] * 3
    for t in range(1, 30):
        gradient = [math.cos(t + i) * x for i, x in enumerate(by_hand)]
        theta.grad = torch.tensor([[math.cos(t + i) * x for i, x in enumerate(theta[0].tolist())]], dtype=theta.dtype)
        optimizers.step()
        for i, g in enumerate(gradient):
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.98 * v[i] + 0.02 * g * g
            by_hand[i] -= 0.01 * (m[i] / (1 - 0.9**t)) / (math.sqrt(v[i] / (1 - 0.98**t)) + 1e-8)
    assert theta[0].tolist() == pytest.approx(by_hand, abs=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_norms_and_biases_do_not_decay(name: OptimizerName) -> None:
    """With gradients of zero only decay moves a parameter."""
    model, optimizers = model_and(name, weight_decay=0.5, learning_rate=0.1)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers.step()
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter, before[key]) == (parameter.ndim == 1), key


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("first", [0, 1, 3])
def test_state_goes_on_where_it_was(name: OptimizerName, first: int) -> None:
    """N + M steps equal N steps, state out and in, M steps, bit for bit."""
    model, optimizers = model_and(name)
    drive(model, optimizers, 0, first)
    saved = {key: tensor.clone() for key, tensor in optimizers.state()}
    assert (first == 0) == (saved == {}) or name == "adagrad"
    resumed, fresh = model_and(name)
    resumed.load_state_dict(model.state_dict())
    fresh.load_state(saved)
    assert {key: t.dtype for key, t in fresh.state()} == {key: t.dtype for key, t in optimizers.state()}
    drive(model, optimizers, first, 6)
    drive(resumed, fresh, first, 6)
    for found, expected in zip(resumed.parameters(), model.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_plain_gradient_descent_has_no_state() -> None:
    model, optimizers = model_and("sgd", momentum=0.0)
    drive(model, optimizers, 0, 2)
    assert dict(optimizers.state()) == {}


@pytest.mark.parametrize("key", ["0.99.exp_avg", "7.0.exp_avg", "a.b.c"])
def test_state_of_another_model_is_refused(key: str) -> None:
    _, optimizers = model_and("adamw")
    with pytest.raises(KeyError):
        optimizers.load_state({key: torch.zeros(1)})


def test_frozen_parameters_are_left_out() -> None:
    torch.manual_seed(0)
    model = Small()
    model.bias.requires_grad_(False)
    members = build_optimizers(model.named_parameters(), OptimizerConfig()).members
    assert all(p is not model.bias for m in members for group in m.param_groups for p in group["params"])


def test_rates_scale_every_group_from_its_peak() -> None:
    _, optimizers = model_and("muon", learning_rate=0.02, adamw_lr_ratio=0.5)

    def rates() -> list[float]:
        return [group["lr"] for member in optimizers.members for group in member.param_groups]

    peaks = rates()
    optimizers.set_rate(0.25)
    optimizers.set_rate(0.5)
    assert rates() == [peak / 2 for peak in peaks]
    assert set(peaks) == {0.02, 0.01}


def test_forgetting_gradients_frees_them() -> None:
    model, optimizers = model_and("adamw")
    set_gradients(model, 0)
    optimizers.zero_grad()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rate": 0.0},
        {"learning_rate": -1.0},
        {"learning_rate": math.nan},
        {"weight_decay": -0.1},
        {"clip": -1.0},
        {"beta1": 1.0},
        {"momentum": -0.1},
    ],
)
def test_impossible_values_are_refused(values: dict[str, float]) -> None:
    (name,) = values
    with pytest.raises(PalavraError, match=name):
        OptimizerConfig(**values)  # type: ignore[arg-type]


def test_a_gradient_of_none_is_no_step() -> None:
    model, optimizers = model_and("adamw")
    before: list[Tensor] = [p.detach().clone() for p in model.parameters()]
    optimizers.step()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
