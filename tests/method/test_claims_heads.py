"""What the method claims of the head and its optimization (E): the rows marked exact, each named by the row's id.

As in `test_claims_tasks`, the numbers are those of the method's worked examples, recomputed by the library.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from builders.claims import identity, job_of, named_parameters, rows_of, sentiments
from builders.finetuning import objective_of
from builders.models import CPU, layout_of, model_config, scramble
from builders.tasks import trained
from torch import Tensor, nn

from palavra.finetuning.job import FinetuningJob
from palavra.log import Log
from palavra.losses import cross_entropy
from palavra.model.config import HeadActivation, HeadConfig, OutputConfig
from palavra.model.task_heads import BatchNorm
from palavra.model.task_outputs.build import build_output
from palavra.model.task_outputs.layers import Hierarchical, Sampled, Softmax
from palavra.recipe import FinetuneRecipe
from palavra.tasks.saved_model import build_head
from palavra.tasks.spec import TaskSpec
from palavra.tokenizer import Tokenizer
from palavra.training.config import OptimizerConfig, OptimizerName, ScheduleConfig, StrategyConfig
from palavra.training.job import Validation
from palavra.training.optimizers import build_optimizers
from palavra.training.run_directory import RunDirectory
from palavra.training.schedules import rate
from palavra.training.trainer import Trainer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained()


@pytest.mark.parametrize("activation", get_args(HeadActivation))
@pytest.mark.parametrize("hidden", [(), (8,), (8, 5)])
def test_task_head_is_linear_layers_activations_and_a_softmax__E_head(
    hidden: tuple[int, ...], activation: HeadActivation
) -> None:
    """None or several hidden layers (E-P1), each activated; a distribution over the classes at the end."""
    spec = TaskSpec(
        kind="classification", multilabel=False, head=HeadConfig(hidden_sizes=hidden, activation=activation)
    )
    task = sentiments(spec)
    head = build_head(model_config("bert"), task).eval()
    scramble(head)
    names = {"relu": "ReLU", "tanh": "Tanh", "sigmoid": "Sigmoid", "gelu": "GELU", "silu": "SiLU", "gelu_tanh": "GELU"}
    own = nn.GELU("tanh") if activation == "gelu_tanh" else getattr(nn, names[activation])()
    x = torch.randn(4, 16)
    expected = x
    for layer in head.layers:
        expected = own(layer.dense(expected))  # type: ignore[operator]
    assert isinstance(head.output, Softmax)
    expected = torch.softmax(head.output.linear(expected), 1)
    (log_p,) = task.output.infer(head.output, head(x), rows_of([0] * 4))
    torch.testing.assert_close(log_p.exp(), expected)
    assert len(head.layers) == len(hidden)


def test_relu_then_softmax_of_the_worked_example__E_ex1() -> None:
    """[-0.5, 1.2, 0.3] -> [0, 1.2, 0.3] -> 0.176, 0.586, 0.238; the chapter prints 0.17, 0.58 and 0.25, the last
    of which is wrong. A ReLU right before the softmax is allowed: a hidden layer as wide as the classes."""
    spec = TaskSpec(kind="classification", multilabel=False, head=HeadConfig(hidden_sizes=(3,), activation="relu"))
    task = sentiments(spec)
    head = build_head(model_config("bert"), task).eval()
    output = identity(head.output)
    dense = head.layers[0].dense
    assert isinstance(dense, nn.Linear)
    with torch.no_grad():
        dense.weight.zero_()
        dense.bias.copy_(torch.tensor([-0.5, 1.2, 0.3]))
    x = head(torch.zeros(1, 16))
    torch.testing.assert_close(x, torch.tensor([[0.0, 1.2, 0.3]]))
    (log_p,) = task.output.infer(output, x, rows_of([0]))
    assert log_p[0].exp().tolist() == pytest.approx([0.176, 0.586, 0.238], abs=5e-4)
    assert task.output.labels[int(log_p.argmax())] == "negativo"  # the second class
    # By default nothing stands between the last linear layer and the softmax.
    assert not build_head(model_config("bert"), sentiments()).layers


@pytest.mark.parametrize(("width", "classes"), [(768, 3), (16, 2), (384, 77)])
def test_number_of_parameters_of_a_linear_head__E_L1(width: int, classes: int) -> None:
    output = build_output(OutputConfig(), width, np.ones(classes, dtype=np.int64))
    assert named_parameters(output) == width * classes + classes
    if width == 768:
        assert named_parameters(output) == 2307


def test_number_of_parameters_of_a_deeper_head__E_L1_1() -> None:
    """The chapter says two layers and counts three: d to d1, d1 to d2, d2 to K."""
    d, d1, d2, classes = 16, 12, 7, 3
    expected = (d * d1 + d1) + (d1 * d2 + d2) + (d2 * classes + classes)
    head = build_head(model_config("bert"), sentiments(TaskSpec(
        kind="classification", multilabel=False, head=HeadConfig(hidden_sizes=(d1, d2))
    )))  # fmt: skip
    assert named_parameters(head) == expected


THEIRS: dict[OptimizerName, Any] = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad}


@pytest.mark.parametrize("name", THEIRS)
def test_optimizers_equal_those_of_torch__E_opt(name: OptimizerName) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3).double(), nn.Linear(5, 3).double()
    theirs.load_state_dict(ours.state_dict())
    config = OptimizerConfig(name=name, learning_rate=0.05, weight_decay=0.0, beta2=0.999, momentum=0.9)
    options = {"momentum": 0.9} if name == "sgd" else {"eps": config.epsilon}
    optimizers, reference = (
        build_optimizers(ours.named_parameters(), config),
        THEIRS[name](theirs.parameters(), lr=0.05, **options),
    )
    x, labels = torch.randn(8, 5).double(), torch.randint(3, (8,))
    for _ in range(20):
        for model, optimizer in ((ours, optimizers), (theirs, reference)):
            optimizer.zero_grad()
            F.cross_entropy(model(x), labels).backward()
            optimizer.step()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other)


RATE, BETAS, MOMENTUM = 0.05, (0.9, 0.999), 0.9
LOOPED: tuple[OptimizerName, ...] = ("sgd", "adagrad", "adam", "adamw")


def moved_by_hand(name: OptimizerName, config: OptimizerConfig, state: dict[str, float], w: float, g: float) -> float:
    """One update of one weight in float64, as the papers have it."""
    state["t"] = state.get("t", 0) + 1
    if name == "sgd":
        state["v"] = MOMENTUM * state.get("v", 0.0) + g
        return w - RATE * state["v"]
    if name == "adagrad":
        state["sum"] = state.get("sum", 0.0) + g * g
        return w - RATE * g / (math.sqrt(state["sum"]) + config.epsilon)
    m = state["m"] = BETAS[0] * state.get("m", 0.0) + (1 - BETAS[0]) * g
    v = state["v"] = BETAS[1] * state.get("v", 0.0) + (1 - BETAS[1]) * g * g
    step = RATE * (m / (1 - BETAS[0] ** state["t"])) / (math.sqrt(v / (1 - BETAS[1] ** state["t"])) + config.epsilon)
    # Of adamw the decay is decoupled, of adam it is 0 here.
    return float(w * (1 - RATE * config.weight_decay) - step)


@pytest.mark.parametrize("name", LOOPED)
def test_optimizers_equal_a_float64_loop_over_every_weight__E_opt(name: OptimizerName) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 3).double()
    decay = 0.1 if name == "adamw" else 0.0
    config = OptimizerConfig(name=name, learning_rate=RATE, weight_decay=decay, beta2=BETAS[1], momentum=MOMENTUM)
    optimizers = build_optimizers(layer.named_parameters(), config)
    weights = layer.weight.detach().flatten().tolist()
    states: list[dict[str, float]] = [{} for _ in weights]
    x, labels = torch.randn(8, 4).double(), torch.randint(3, (8,))
    for _ in range(20):
        optimizers.zero_grad()
        F.cross_entropy(layer(x), labels).backward()
        assert layer.weight.grad is not None
        gradients = layer.weight.grad.flatten().tolist()
        optimizers.step()
        weights = [moved_by_hand(name, config, *of) for of in zip(states, weights, gradients, strict=True)]
        assert layer.weight.detach().flatten().tolist() == pytest.approx(weights, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("predicted", "printed"),
    [
        ([0.2, 0.7, 0.1], 0.356), ([0.1, 0.8, 0.1], 0.223), ([0.05, 0.9, 0.05], 0.105),
        ([0.2, 0.3, 0.5], 1.204), ([0.1, 0.6, 0.3], 0.511), ([0.05, 0.8, 0.15], 0.223),
    ],
)  # fmt: skip
def test_losses_of_the_table__E_tab(predicted: list[float], printed: float) -> None:
    """The first is 0.3567, which the chapter cuts off, not rounds."""
    q = torch.tensor(predicted, dtype=torch.float64)
    truth = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    task = sentiments()
    loss = task.output.loss(identity(task.output.build(3)).double(), q.log()[None], rows_of([1]))
    assert float(loss.mean.detach()) == pytest.approx(printed, abs=1e-3)
    torch.testing.assert_close(loss.mean.detach(), cross_entropy(truth, q))


@pytest.mark.parametrize("classes", [2, 3, 100, 1000])
@pytest.mark.parametrize("tree", ["huffman", "balanced"])
def test_hierarchical_softmax_sums_to_one_at_the_cost_of_a_path__E_C1_1(classes: int, tree: Any) -> None:
    torch.manual_seed(0)
    counts = np.random.default_rng(0).zipf(1.5, size=classes).clip(1, 10**6)
    output = build_output(OutputConfig(name="hierarchical", tree=tree), 8, counts).double()
    assert isinstance(output, Hierarchical)
    hidden, labels = torch.randn(5, 8).double(), torch.randint(classes, (5,))
    log_p = output.log_probabilities(hidden)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(output.total_loss(hidden, labels), -log_p[torch.arange(5), labels].sum())
    if tree == "balanced":
        assert int(output.signs.abs().sum(1).max()) == math.ceil(math.log2(classes))
    else:
        shares = torch.from_numpy(counts / counts.sum())
        entropy = float(cross_entropy(shares, shares)) / math.log(2)
        assert entropy <= float((output.signs.abs().sum(1) * shares).sum()) <= entropy + 1


def test_sampled_softmax_estimates_the_full_one__E_C1_1() -> None:
    """With every class drawn, negative sampling is the cross-entropy; in evaluation it always is."""
    torch.manual_seed(0)
    counts = np.arange(1, 41)
    hidden, labels = torch.randn(6, 8), torch.randint(40, (6,))
    for samples in (40, 5):
        output = build_output(OutputConfig(name="sampled", samples=samples), 8, counts)
        assert isinstance(output, Sampled)
        full = F.cross_entropy(output.linear(hidden), labels, reduction="sum")
        if samples == 40:
            torch.testing.assert_close(output.train().total_loss(hidden, labels), full)
        else:
            assert len(output.draw()) < 20
        torch.testing.assert_close(output.eval().total_loss(hidden, labels), full)


def test_dropout_zeroes_its_rate_in_training_only__E_reg() -> None:
    task = sentiments(TaskSpec(kind="classification", multilabel=False, head=HeadConfig(hidden_sizes=(), dropout=0.2)))
    head = build_head(model_config("bert", hidden_size=768, num_heads=2), task)
    h = torch.linspace(0.1, 0.768, 768).expand(50, -1)
    dropped = head.train()(h)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.2, abs=0.01)
    kept = dropped != 0
    # What is left is scaled up, which the chapter leaves out, so that evaluation needs no change.
    torch.testing.assert_close(dropped[kept], h[kept] / 0.8)
    assert torch.equal(head.eval()(h), h)


def test_weight_decay_equals_an_l2_penalty__E_reg() -> None:
    """Loss + 0.01 times a squared norm of 100 = loss + 1; the chapter's lambda is half of torch's weight decay."""
    layer = nn.Linear(10, 10)
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(5.0)  # biases are spared

    def penalty(layer: nn.Linear) -> Tensor:
        return 0.01 * layer.weight.square().sum()

    # What the library's decay adds to a loss: its force is the move of a step whose gradients are 0, over the rate,
    # and the penalty of a squared norm is half of weight times force.
    still = nn.Linear(10, 10)
    still.load_state_dict(layer.state_dict())
    config = OptimizerConfig(name="sgd", learning_rate=0.1, weight_decay=2 * 0.01, momentum=0.0)
    optimizers = build_optimizers(still.named_parameters(), config)
    for parameter in still.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers.step()
    force = (layer.weight - still.weight) / 0.1
    assert float((layer.weight * force).sum().detach() / 2) == pytest.approx(1.0, rel=1e-4)
    assert torch.equal(still.bias, layer.bias)
    # Moving by the loss with that weight decay is moving by the loss plus the penalty.
    other = nn.Linear(10, 10)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(4, 10)
    for model, decay in ((layer, 2 * 0.01), (other, 0.0)):
        config = OptimizerConfig(name="sgd", learning_rate=0.1, weight_decay=decay, momentum=0.0)
        optimizers = build_optimizers(model.named_parameters(), config)
        loss = model(x).square().mean()
        (loss if decay else loss + penalty(model)).backward()
        optimizers.step()
    torch.testing.assert_close(layer.weight, other.weight)
    torch.testing.assert_close(layer.bias, other.bias)
    assert OptimizerConfig().name == "adamw"  # decoupled decay is the default


VALIDATION_LOSSES = (0.85, 0.72, 0.65, 0.58, 0.55, 0.53, 0.52, 0.53, 0.55)


@dataclass(frozen=True, kw_only=True)
class Scripted(FinetuningJob):
    """A run whose validations find the chapter's table."""

    found: list[float]

    def validate(self) -> Validation:
        loss = VALIDATION_LOSSES[len(self.found)]
        self.found.append(loss)
        return Validation(score=loss, loss=loss, values={"loss": loss}, line="")


@pytest.mark.parametrize(("patience", "seen"), [(1, 8), (2, 9), (None, 9)])
def test_early_stopping_keeps_the_best_of_nine_evaluations__E_reg(
    tokenizer: Tokenizer, tmp_path: Path, patience: int | None, seen: int
) -> None:
    job = job_of(tokenizer, StrategyConfig(name="frozen"), "bert", epochs=9, patience=patience)
    scripted = Scripted(
        recipe=job.recipe, model=job.model, tasks=job.tasks, train=job.train, valid={}, compute=CPU, found=[]
    )
    outcome = Trainer(scripted, RunDirectory(tmp_path), Log(quiet=True)).train()
    assert outcome.state.best_step == 7
    assert outcome.state.best_score == 0.52
    assert outcome.state.step == len(scripted.found) == seen
    assert (tmp_path / "checkpoints" / "step-7" / "weights.safetensors").is_file()


def test_learning_rate_warms_up_and_decays__E_sched() -> None:
    config = ScheduleConfig(name="linear", warmup=0.1)
    shares = [rate(step, 100, config) for step in range(100)]
    assert shares[:10] == pytest.approx([(step + 1) / 11 for step in range(10)])
    assert shares[10] == 1.0
    assert shares[55] == pytest.approx(0.5)
    assert shares[99] == pytest.approx(1 / 90)
    assert FinetuneRecipe().schedule == config
    cosine = ScheduleConfig(name="cosine", warmup=0.1)
    assert [rate(step, 100, cosine) for step in (10, 55)] == pytest.approx([1.0, 0.5])


def test_multitask_loss_combines_the_losses_of_its_tasks__E_mtl(pretrained: Path, reviews: Path) -> None:
    """Each task's loss times its weight, in loss and gradient: over steps of each, those of the sum of w_t L_t."""
    objective, model, tasks, features = objective_of(pretrained, reviews, "fixed")
    together = torch.zeros(())
    for name, weight in (("mood", 1.0), ("stars", 2.0)):
        batch = features[name].batch(np.arange(6), name)
        layout = layout_of(batch)
        plain = tasks[name].output.loss(model.head(name).output, model(batch, layout), batch)
        found = objective.loss(model, batch, layout)
        torch.testing.assert_close(found.total, weight * plain.total)
        assert found.count == plain.count == 6
        together = together + weight * plain.mean
        found.mean.backward()
    summed = [p.grad.clone() for p in model.transformer.parameters() if p.grad is not None]
    model.zero_grad()
    together.backward()
    gradients = [p.grad for p in model.transformer.parameters() if p.grad is not None]
    torch.testing.assert_close(summed, gradients)


def test_batch_norm_of_many_rows_of_one_row_and_in_evaluation__E_L1_2() -> None:
    """Mean near zero and deviation near one in a batch; a batch of one, and evaluation, use what was seen before."""
    norm = BatchNorm(6)
    for seed in range(100):
        x = torch.randn(64, 6, generator=torch.Generator().manual_seed(seed)) * 3 + 5
        out = norm(x)
    torch.testing.assert_close(out.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(0, correction=0), torch.ones(6), atol=1e-4, rtol=0)
    one = torch.full((1, 6), 8.0)
    expected: Tensor = norm.eval()(one)
    assert expected.tolist()[0] == pytest.approx([1.0] * 6, abs=0.15)  # (8 - 5) / 3
    torch.testing.assert_close(norm.train()(one), expected)
