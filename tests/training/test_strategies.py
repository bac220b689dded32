"""Strategies: exactly which parameters move, when, and how fast."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any, get_args

import numpy as np
import pytest
import torch
from builders.models import CPU, layout_of, model_config, scramble
from builders.tasks import TEXTS, fit, trained
from torch import Tensor

from palavra.data.packing import Cursor
from palavra.errors import PalavraError
from palavra.finetuning.job import FinetuningJob, Labelled
from palavra.inference.finetuned import body_vectors
from palavra.model.config import HeadConfig
from palavra.model.lora import ADAPTED, LoRALinear, merge_lora
from palavra.model.task_heads import TaskModel
from palavra.recipe import FinetuneConfig, FinetuneRecipe
from palavra.tasks.saved_model import build_task_model
from palavra.tasks.spec import TaskSpec
from palavra.tasks.text_examples import TextExample
from palavra.tokenizer import Tokenizer
from palavra.training.config import OptimizerConfig, OptimizerName, ScheduleConfig, StrategyConfig, StrategyName
from palavra.training.loop import prepare_steps, train
from palavra.training.strategies import depth, finish_model, is_head, lr_ratio_of, prepare_model, trainable_parts

LAYERS = 3
WORDS = " ".join(TEXTS).split()
EXAMPLES = [
    TextExample(first=" ".join(WORDS[n : n + 2 + n % 7]), second=None, label=("ab"[n % 2],), where=f"t.csv:{n}")
    for n in range(24)
]
CONSTANT = ScheduleConfig(name="constant", warmup=0.0)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained()


def job_of(
    tokenizer: Tokenizer, strategy: StrategyConfig, *, steps: int = 10, family: str = "modernbert",
    optimizer: OptimizerName = "adamw", rate: float = 0.01, cached: bool = False, decay: float = 0.01,
    head: HeadConfig | None = None, schedule: ScheduleConfig = CONSTANT, whole_table: bool = False, **changes: Any,
) -> FinetuningJob:  # fmt: skip
    """A run on a few examples, as `finetune` puts it together."""
    head = HeadConfig(dropout=0.0) if head is None else head
    task = fit(TaskSpec(kind="classification", head=head), EXAMPLES)
    changes |= {"vocab_size": tokenizer.vocab_size, "num_layers": LAYERS}
    if family == "modernbert":
        changes |= {"layer_kinds": ("global", "local", "global")}
    torch.manual_seed(0)
    model = build_task_model(model_config(family, **changes), {"task": task})
    scramble(model)
    features = task.encoder.encode(EXAMPLES, tokenizer, 64, False)
    prepare_model(model, strategy, np.arange(tokenizer.vocab_size) if whole_table else features.input_ids)
    vectors = body_vectors(model, "task", features, CPU) if cached else None
    labelled = Labelled(examples=EXAMPLES, encoded=features, vectors=vectors)
    recipe = FinetuneRecipe(
        strategy=strategy,
        optimizer=OptimizerConfig(name=optimizer, learning_rate=rate, weight_decay=decay),
        schedule=schedule,
        train=FinetuneConfig(steps=steps, batch_size=6),
    )
    return FinetuningJob(
        recipe=recipe, model=model, tasks={"task": task}, train={"task": labelled}, valid={}, compute=CPU
    )


def values(model: TaskModel) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def run(job: FinetuningJob) -> Iterator[set[str]]:
    """Train, and give the names of what each step moved."""
    prepared = prepare_steps(job.micro_batches(Cursor()), job.objective, job.loop, CPU, 0)
    optimizers, step = job.optimizers(), 0
    for stage in job.stages():
        if stage.until <= step:
            continue
        stage.begin()
        before = values(job.model)
        part = islice(prepared, stage.until - step)
        for _ in train(job.model, job.objective, part, optimizers, job.loop, CPU, step):
            after = values(job.model)
            yield {name for name in after if not torch.equal(after[name], before[name])}
            before = after
        step = stage.until
    assert step == job.loop.steps


def names(model: TaskModel, *parts: str) -> set[str]:
    """The parameters whose names begin with one of the parts."""
    return {name for name, _ in model.named_parameters() if name.startswith(parts)}


def layer(number: int) -> str:
    return f"transformer.layers.{number}."


# Which parameters move


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_full_moves_everything_but_the_vectors_that_no_example_reads(tokenizer: Tokenizer, family: str) -> None:
    job = job_of(tokenizer, StrategyConfig(), family=family, steps=2)
    kept = job.model.get_buffer("transformer.embeddings.token.kept").clone()
    assert all(moved == names(job.model, "") for moved in run(job))
    assert torch.equal(job.model.get_buffer("transformer.embeddings.token.kept"), kept)


@pytest.mark.parametrize("optimizer", get_args(OptimizerName))
@pytest.mark.parametrize("strategy", ["full", "gradual"])
def test_weights_are_those_of_a_run_with_the_whole_table(
    tokenizer: Tokenizer, optimizer: OptimizerName, strategy: StrategyName
) -> None:
    """But for the decay of vectors that no example reads: these stay as they are."""

    def trained_by(decay: float, *, whole_table: bool) -> dict[str, Tensor]:
        job = job_of(
            tokenizer, StrategyConfig(name=strategy), optimizer=optimizer, decay=decay, whole_table=whole_table
        )
        list(run(job))
        finish_model(job.model)
        return dict(job.model.state_dict())

    whole, part, decayed = (
        trained_by(0.0, whole_table=True), trained_by(0.0, whole_table=False), trained_by(0.1, whole_table=False)
    )  # fmt: skip
    assert whole.keys() == part.keys()
    for name in whole:
        torch.testing.assert_close(part[name], whole[name], rtol=1e-4, atol=1e-6)
    token = "transformer.embeddings.token.weight"
    job = job_of(tokenizer, StrategyConfig())
    unread = np.setdiff1d(np.arange(tokenizer.vocab_size), job.train["task"].encoded.input_ids)
    assert torch.equal(decayed[token][unread], part[token][unread])
    assert torch.equal(decayed[token][unread], job.model.get_buffer("transformer.embeddings.token.kept"))


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_frozen_moves_the_head_alone(tokenizer: Tokenizer, family: str) -> None:
    job = job_of(tokenizer, StrategyConfig(name="frozen"), family=family, steps=3)
    assert all(moved == names(job.model, "heads.") for moved in run(job))


@pytest.mark.parametrize("layers", range(LAYERS + 1))
def test_top_k_moves_the_last_layers_and_the_head(tokenizer: Tokenizer, layers: int) -> None:
    job = job_of(tokenizer, StrategyConfig(name="last-n", last_n=layers), steps=3)
    top = [layer(number) for number in range(LAYERS - layers, LAYERS)]
    expected = names(job.model, "heads.", *top, *(["transformer.final_norm"] if layers else []))
    assert all(moved == expected for moved in run(job))


def test_gradual_thaws_a_layer_at_a_time_from_the_top_and_the_embeddings_last(tokenizer: Tokenizer) -> None:
    job = job_of(tokenizer, StrategyConfig(name="gradual", unfreeze_fraction=0.2), steps=10)
    model, norm = job.model, "transformer.final_norm"
    expected = [
        names(model, "heads."),
        names(model, "heads.", norm, layer(2)),
        names(model, "heads.", norm, layer(2), layer(1)),
        names(model, "heads.", norm, "transformer.layers."),
        names(model, ""),
    ]
    assert list(run(job)) == [stage for stage in expected for _ in range(2)]


@pytest.mark.parametrize(("share", "stages"), [(1.0, 5), (0.3, 5), (0.05, 5)])
def test_gradual_ends_with_everything(tokenizer: Tokenizer, share: float, stages: int) -> None:
    strategy = StrategyConfig(name="gradual", unfreeze_fraction=share)
    job = job_of(tokenizer, strategy, steps=5)
    assert len(trainable_parts(strategy, job.model.config.num_layers)) == stages
    moved = list(run(job))
    assert len(moved) == 5
    assert all(one <= other for one, other in pairwise(moved))
    assert moved[-1] == names(job.model, "")


def test_lora_moves_the_corrections_and_the_head(tokenizer: Tokenizer) -> None:
    job = job_of(tokenizer, StrategyConfig(name="lora", rank=2), steps=3, decay=0.0)
    adapted = {name for name in names(job.model, "") if ".lora_" in name}
    moved = list(run(job))
    # B is zero at first, and A has no gradient until it is not.
    assert moved[0] == names(job.model, "heads.") | {name for name in adapted if name.endswith("lora_b")}
    assert moved[1] == moved[2] == names(job.model, "heads.") | adapted


def test_too_many_layers_are_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(PalavraError, match=r"^strategy\.last_n is 4, the model has only 3: lower it$"):
        job_of(tokenizer, StrategyConfig(name="last-n", last_n=4))


@pytest.mark.parametrize(
    "wrong",
    [
        {"unfreeze_fraction": 0.0},
        {"unfreeze_fraction": 1.1},
        {"layer_decay": 0.0},
        {"layer_decay": 1.5},
        {"head_lr_ratio": 0.0},
        {"rank": 0},
        {"alpha": -1.0},
        {"last_n": -1},
    ],
)
def test_a_strategy_that_cannot_be_is_an_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(PalavraError, match=rf"^strategy\.{next(iter(wrong))} is .*$"):
        StrategyConfig(**wrong)


# The body at rest


def test_a_frozen_body_stays_in_evaluation_while_the_head_learns(tokenizer: Tokenizer) -> None:
    """With dropout in the body, as bert has it, vectors would otherwise differ from step to step."""
    job = job_of(tokenizer, StrategyConfig(name="frozen"), family="bert", steps=2, dropout=0.5)
    for _ in run(job):
        assert not any(module.training for module in job.model.transformer.modules())
        assert all(module.training for module in job.model.heads.modules())


def test_a_thawed_body_trains_from_its_stage_on(tokenizer: Tokenizer) -> None:
    job = job_of(tokenizer, StrategyConfig(name="gradual", unfreeze_fraction=0.5), steps=4)
    assert [job.model.transformer.training for _ in run(job)] == [False, True, True, True]


@pytest.mark.parametrize("pooling", ["cls", "mean", "max"])
def test_cached_vectors_give_what_the_body_gives_every_time(tokenizer: Tokenizer, pooling: Any) -> None:
    head = HeadConfig(pooling=pooling, dropout=0.2)
    found = []
    for cached in (False, True):
        job = job_of(tokenizer, StrategyConfig(name="frozen"), cached=cached, head=head, dropout=0.3)
        assert len(list(run(job))) == 10
        found.append(values(job.model))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-5)


def test_cached_vectors_spare_the_body(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(tokenizer, StrategyConfig(name="frozen"), cached=True, steps=2)

    def forbidden(*_: Any) -> None:
        raise AssertionError("the body ran")

    monkeypatch.setattr(job.model.transformer, "forward", forbidden)
    assert len(list(run(job))) == 2


# LoRA


@pytest.mark.parametrize("family", ["bert", "modernbert"])
def test_merged_corrections_give_the_same_logits(tokenizer: Tokenizer, family: str) -> None:
    job = job_of(tokenizer, StrategyConfig(name="lora", rank=3, alpha=7.0), family=family, steps=5)
    list(run(job))
    model = job.model.eval()
    plain = set(job_of(tokenizer, StrategyConfig(), family=family, whole_table=True).model.state_dict())
    batch = job.train["task"].encoded.batch(np.arange(6), "task")
    with torch.inference_mode():
        before = model.head("task").output.log_probabilities(model(batch, layout_of(batch)))  # type: ignore[operator]
        corrected = {name: value.clone() for name, value in model.state_dict().items()}
    merge_lora(model)
    assert set(model.state_dict()) == plain
    assert not any(isinstance(module, LoRALinear) for module in model.modules())
    with torch.inference_mode():
        after = model.head("task").output.log_probabilities(model(batch, layout_of(batch)))  # type: ignore[operator]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    name = "transformer.layers.0.attention.qkv"
    delta = 7.0 / 3 * corrected[f"{name}.lora_b"] @ corrected[f"{name}.lora_a"]
    assert delta.abs().max() > 1e-3
    torch.testing.assert_close(model.state_dict()[f"{name}.weight"], corrected[f"{name}.weight"] + delta)


def test_new_corrections_change_nothing(tokenizer: Tokenizer) -> None:
    plain, lora = (job_of(tokenizer, StrategyConfig(name=name)) for name in ("full", "lora"))
    batch = plain.train["task"].encoded.batch(np.arange(6), "task")
    with torch.inference_mode():
        torch.testing.assert_close(
            lora.model.eval()(batch, layout_of(batch)), plain.model.eval()(batch, layout_of(batch))
        )


@pytest.mark.parametrize("rank", [1, 4, 1000])
def test_corrections_have_rank_times_both_sides_parameters(tokenizer: Tokenizer, rank: int) -> None:
    plain = job_of(tokenizer, StrategyConfig(), whole_table=True).model
    model = job_of(tokenizer, StrategyConfig(name="lora", rank=rank)).model
    expected = 0
    for part in plain.transformer.layers:
        for name in ADAPTED:
            outputs, inputs = part.get_submodule(name).weight.shape  # type: ignore[misc]
            expected += min(rank, inputs, outputs) * (inputs + outputs)
    moving = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    assert sum(count for name, count in moving.items() if not is_head(name)) == expected
    assert sum(p.numel() for p in model.parameters()) == expected + sum(p.numel() for p in plain.parameters())


# How fast


def test_depths_and_shares_of_the_rate() -> None:
    shares = lr_ratio_of(StrategyConfig(layer_decay=0.5, head_lr_ratio=10.0), LAYERS)
    expected = {
        "transformer.embeddings.token.weight": (0, 0.125),
        "transformer.embeddings.norm.weight": (0, 0.125),
        "transformer.layers.0.mlp.up.weight": (1, 0.25),
        "transformer.layers.1.attention_norm.weight": (2, 0.5),
        "transformer.layers.2.attention.qkv.weight": (3, 1.0),
        "transformer.layers.10.attention.qkv.weight": (11, 0.5**-8),
        "transformer.final_norm.weight": (3, 1.0),
        "heads.task.layers.0.dense.weight": (4, 10.0),
        "heads.task.output.linear.bias": (4, 10.0),
        "log_variances.task": (4, 10.0),
    }
    assert {name: (depth(name, LAYERS), shares(name)) for name in expected} == expected


@pytest.mark.parametrize("optimizer", get_args(OptimizerName))
def test_each_layer_takes_its_share_of_the_rate(tokenizer: Tokenizer, optimizer: OptimizerName) -> None:
    """The groups' rates are the shares of one another, under the schedule too."""
    strategy = StrategyConfig(layer_decay=0.5, head_lr_ratio=10.0)
    job = job_of(tokenizer, strategy, optimizer=optimizer, rate=0.01)
    optimizers, share = job.optimizers(), lr_ratio_of(strategy, LAYERS)
    optimizers.set_rate(0.5)
    rates = {id(p): group["lr"] for one in optimizers.members for group in one.param_groups for p in group["params"]}
    assert len(rates) == sum(len(group["params"]) for one in optimizers.members for group in one.param_groups)
    found = {name: rates[id(p)] for name, p in job.model.named_parameters()}
    assert found == pytest.approx({name: 0.5 * 0.01 * share(name) for name in found})


def test_sgd_moves_a_layer_by_its_share(tokenizer: Tokenizer) -> None:
    """Without momentum's past, a step is the gradient times the rate."""
    moved = []
    for decay in (1.0, 0.5):
        strategy = StrategyConfig(layer_decay=decay, head_lr_ratio=1.0)
        job = job_of(tokenizer, strategy, optimizer="sgd", rate=0.1, steps=1, decay=0.0)
        before = values(job.model)
        list(run(job))
        moved.append({name: value - before[name] for name, value in values(job.model).items()})
    for name, whole in moved[0].items():
        share = lr_ratio_of(StrategyConfig(layer_decay=0.5), LAYERS)(name)
        torch.testing.assert_close(moved[1][name], whole * share, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("optimizer", get_args(OptimizerName))
@pytest.mark.parametrize("strategy", get_args(StrategyName))
def test_every_optimizer_runs_with_every_strategy(
    tokenizer: Tokenizer, optimizer: OptimizerName, strategy: StrategyName
) -> None:
    config = StrategyConfig(name=strategy, last_n=1, unfreeze_fraction=0.4, rank=2, layer_decay=0.9)
    job = job_of(tokenizer, config, optimizer=optimizer, steps=3, head=HeadConfig(hidden_sizes=(8,), norm="layer"))
    moved = set().union(*run(job))
    assert names(job.model, "heads.") <= moved
    assert all(torch.isfinite(value).all() for value in values(job.model).values())


def test_any_split_of_a_step_gives_the_same_step(tokenizer: Tokenizer) -> None:
    found = []
    for budget in (8192, 16):
        job = job_of(tokenizer, StrategyConfig(), optimizer="sgd", steps=3)
        job = replace(job, recipe=replace(job.recipe, train=replace(job.recipe.train, micro_batch_tokens=budget)))
        assert (len(next(iter(job.micro_batches(Cursor())))) > 1) == (budget == 16)
        list(run(job))
        found.append(values(job.model))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-6)
