"""Fine-tuning is training as everybody knows it: packed, it takes the steps that a model of `transformers` takes on the
same examples in padded batches with torch's AdamW. Without dropout, the only thing that is drawn differently."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders.finetuning import FAST, recipe, spec, weights
from builders.models import build_causal_model, build_model, model_config
from torch import Tensor, nn

from palavra.finetuning.job import FinetuningJob
from palavra.finetuning.plan import resolve_finetuning
from palavra.finetuning.run import build_job, save_finished
from palavra.finetuning.splits import Split, read_split
from palavra.log import Log
from palavra.model.config import HeadConfig
from palavra.model.directory import save_model
from palavra.model.families import FAMILIES
from palavra.tasks.spec import Columns, TaskSpec
from palavra.tokenizer import Tokenizer
from palavra.training.config import OptimizerConfig, ScheduleConfig
from palavra.training.run_directory import RunDirectory
from palavra.training.schedules import rate
from palavra.training.strategies import finish_model
from palavra.training.trainer import Trainer

transformers = pytest.importorskip("transformers")

STEPS, BATCH, RATE, DECAY, CLIP = 12, 10, 3e-3, 0.5, 0.5
# Large, for the first steps of a small one are signs, which rounding turns.
EPSILON = 1e-4
SCHEDULE = ScheduleConfig(name="linear", warmup=0.25)
EVERY: dict[str, Any] = {
    "classification": {},
    "pairs": {"columns": Columns(text_a="text", text_b="text_b")},
    "token-classification": {},
}


# Every kind of task with BERT, and one with every other family.
PARITY = [*(("bert", kind) for kind in EVERY), *((family, "classification") for family in FAMILIES if family != "bert")]


def plain_model(family: str, pretrained: Path, tmp_path: Path) -> Path:
    """A model without dropout."""
    tokenizer = Tokenizer.load(pretrained / "bert")
    config = model_config(
        family, vocab_size=tokenizer.vocab_size, pad_id=tokenizer.pad_id, dropout=0.0, attention_dropout=0.0
    )
    save_model((build_causal_model if config.causal else build_model)(config), tmp_path / "plain")
    tokenizer.save(tmp_path / "plain", context=config.context, segments=bool(config.segments))
    return tmp_path / "plain"


def task_of(kind: str, reviews: Path, tmp_path: Path) -> TaskSpec:
    head = HeadConfig(dropout=0.0)
    if kind == "token-classification":
        rows = [line.split(",")[0].split() for line in (reviews / "train.csv").read_text("utf-8").splitlines()[1:]]
        lines = ["".join(f"{word} {'NOUN' if len(word) > 4 else 'X'}\n" for word in words) for words in rows]
        (tmp_path / "t.conll").write_text("\n".join(lines), encoding="utf-8")
        return TaskSpec(kind="token-classification", train=str(tmp_path / "t.conll"), head=head)
    return spec(reviews, kind, valid=None, head=head, **EVERY[kind])


def saved(job: FinetuningJob, tokenizer: Tokenizer, folder: Path) -> Path:
    """The model as it is now, for `transformers`."""
    finish_model(job.model)
    save_finished(job.model, job.tasks, tokenizer, folder, Log(quiet=True))
    return folder


def padded(task: Any, examples: list[Any], tokenizer: Any) -> dict[str, Tensor]:
    """A batch as `transformers` makes it, with labels."""
    if task.spec.kind != "token-classification":
        pairs = [(one.first,) if one.second is None else (one.first, one.second) for one in examples]
        batch = tokenizer(*map(list, zip(*pairs, strict=True)), padding=True, return_tensors="pt")
        return {**batch, "labels": torch.tensor([task.output.labels.index(one.label[0]) for one in examples])}
    words_of = [list(one.words) for one in examples]
    batch = tokenizer(words_of, is_split_into_words=True, padding=True, return_tensors="pt")
    labels = torch.full_like(batch["input_ids"], -100)
    for row, one in enumerate(examples):
        words = batch.word_ids(row)
        for place, word in enumerate(words):
            if word is not None and words[place - 1] != word:
                labels[row, place] = task.output.labels.index(one.labels[word])
    return {**batch, "labels": labels}


@pytest.mark.parametrize(("family", "kind"), PARITY)
def test_each_step_is_that_of_a_padded_batch_and_torchs_adamw(
    pretrained: Path, reviews: Path, tmp_path: Path, family: str, kind: str
) -> None:
    plain = plain_model(family, pretrained, tmp_path)
    split = read_split(task_of(kind, reviews, tmp_path), 0)
    split = Split(task=split.task, train=[*split.train, *split.valid], valid=[], test=[])
    optimizer = OptimizerConfig(
        name="adamw", learning_rate=RATE, weight_decay=DECAY, beta2=0.999, clip=CLIP, epsilon=EPSILON
    )
    wanted = recipe(plain.parent, split.task.spec, family="plain", optimizer=optimizer, schedule=SCHEDULE)
    wanted = replace(wanted, train=replace(FAST, steps=STEPS, batch_size=BATCH))
    tokenizer = Tokenizer.load(plain)
    first, job = (build_job(resolve_finetuning(wanted, [split], tokenizer), [split]) for _ in range(2))
    task = job.tasks["task"]
    form = "TokenClassification" if kind == "token-classification" else "SequenceClassification"
    begun = saved(first, tokenizer, tmp_path / "begun")
    theirs = getattr(transformers, f"AutoModelFor{form}").from_pretrained(begun).train()
    named = list(theirs.named_parameters())
    groups = [
        {"params": [p for _, p in named if p.ndim > 1], "weight_decay": DECAY},
        {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=RATE, eps=EPSILON)
    # For Qwen2, `AutoTokenizer` puts a pipeline of its own in the place of the one in the directory.
    their_tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(plain)
    training = Trainer(job, RunDirectory(tmp_path / "run"), Log(quiet=True))
    orders = [micro[0].documents for micro in islice(job.micro_batches(training.state.cursor), STEPS)]
    for step, order in enumerate(orders):
        adamw.zero_grad()
        theirs(**padded(task, [split.train[number] for number in order], their_tokenizer)).loss.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), CLIP)
        for group in adamw.param_groups:
            group["lr"] = RATE * rate(step, STEPS, SCHEDULE)
        adamw.step()
    training.train()
    theirs.save_pretrained(tmp_path / "theirs")
    saved(job, tokenizer, tmp_path / "trained")
    read = torch.from_numpy(np.unique(job.train["task"].encoded.input_ids)).long()
    before, found, expected = (
        moving(family, weights(tmp_path / name), read) for name in ("begun", "trained", "theirs")
    )
    assert found.keys() == expected.keys()
    way = sum(float((expected[key] - before[key]).square().sum()) for key in expected)
    apart = sum(float((expected[key] - found[key]).square().sum()) for key in expected)
    assert way > 0.01
    assert apart < 1e-9 * way


def moving(family: str, tensors: dict[str, Tensor], read: Tensor) -> dict[str, Tensor]:
    """What is trained: of the vocabulary the tokens that are `read` (the others' vectors would only decay)."""
    key = FAMILIES[family].weights["transformer.embeddings.token"] + ".weight"
    return {**tensors, key: tensors[key][read]}
