"""What the method's claims are tested on: a small model, small tasks, and heads that pass on what they are given."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from builders.models import CPU, build_model, model_config, scramble
from builders.tasks import build, classification_of
from palavra.batch import Batch
from palavra.finetuning.job import FinetuningJob, Labelled
from palavra.inference.masked import MaskedModel
from palavra.model.config import HeadConfig
from palavra.model.task_outputs.layers import Softmax
from palavra.recipe import FinetuneConfig, FinetuneRecipe
from palavra.tasks.spec import TaskSpec
from palavra.tasks.text_examples import TextExample
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig
from palavra.training.config import OptimizerConfig, StrategyConfig
from palavra.training.strategies import prepare_model

SENTENCES = [
    "O gato preto correu rapidamente pela casa.",
    "O rato roeu a roupa do rei de Roma.",
    "A águia voa alto no céu azul.",
    "O cachorro correu na rua.",
    "Sentei no banco da praça.",
    "O dinheiro ficou no banco.",
]
PLAIN = HeadConfig(hidden_sizes=(), dropout=0.0)
TEXTS = ["o gato correu pela rua", "a menina viu o mar", "maria sold her boat", "peter kept it"]


def portuguese_model() -> MaskedModel:
    """A small random model with a Portuguese vocabulary: what holds exactly holds without training."""
    tokenizer = Tokenizer.train(SENTENCES * 3, TokenizerConfig(algorithm="wordpiece", vocab_size=120))
    model = build_model(model_config(vocab_size=tokenizer.vocab_size, hidden_size=32, intermediate_size=48))
    return MaskedModel(model, tokenizer, CPU)


def example(number: int, label: Any, second: str | None = None) -> TextExample:
    return TextExample(first=TEXTS[number], second=second, label=label, where=f"t:{number}")


def sentiments(spec: TaskSpec | None = None) -> Any:
    labels = ("positivo", "negativo", "neutro")
    return classification_of(spec or TaskSpec(kind="classification", multilabel=False, head=PLAIN), labels, [1, 1, 1])


def rows_of(labels: Sequence[int]) -> Batch:
    """A batch of which only the labels matter."""
    count = len(labels)
    numbers = torch.arange(count)
    return Batch(
        input_ids=numbers, position_ids=torch.zeros_like(numbers), max_seqlen=1, label_rows=numbers,
        cu_seqlens=torch.arange(count + 1, dtype=torch.int32), labels=torch.tensor(labels),
    )  # fmt: skip


def identity(output: nn.Module) -> Softmax:
    """The output layer, passing on what it is given."""
    assert isinstance(output, Softmax)
    with torch.no_grad():
        output.linear.weight.copy_(torch.eye(output.classes))
        output.linear.bias.zero_()
    return output


def named_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def job_of(
    tokenizer: Tokenizer, strategy: StrategyConfig, family: str, epochs: int = 1, patience: int | None = None
) -> FinetuningJob:
    """Four examples, one step an epoch."""
    task = sentiments()
    examples = [example(n, (task.output.labels[n % 3],)) for n in range(4)]
    model = build(task, tokenizer.vocab_size, family)
    scramble(model)
    encoded = task.encoder.encode(examples, tokenizer, 64, model.config.segments > 1)
    prepare_model(model, strategy, encoded.input_ids)
    settings = FinetuneConfig(steps=epochs, batch_size=4, patience=patience)
    recipe = FinetuneRecipe(strategy=strategy, optimizer=OptimizerConfig(learning_rate=0.01), train=settings)
    labelled = Labelled(examples=examples, encoded=encoded)
    return FinetuningJob(
        recipe=recipe, model=model, tasks={"task": task}, train={"task": labelled}, valid={}, compute=CPU
    )
