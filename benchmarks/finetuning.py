"""Fine-tuning side by side with the Trainer of transformers: test scores and examples a second, over seeds.

    python benchmarks/finetuning.py MODEL DATA [--tasks trec mrpc ...] [--whole] [--seeds 3] [--out results.jsonl]

MODEL is a pretrained BERT directory; DATA a folder with one folder a task (sst2, mrpc, stsb, conll2003, trec: JSONL
or CoNLL files). Needs `transformers` and `accelerate` beside the package. Both sides get the same examples, learning
rate, batch, epochs, warmup, decay, clipping, dropout, seeds, threads and bfloat16; the peer pads each batch to its
longest member. Each run is a process of its own; the two sides alternate, and take turns in going first. Both models
are read back from disk and scored on the test examples in float32 by the same code. The rate is examples over the wall
time from before the first step to after the last one: no reading, building, evaluating or saving.
Results are appended to --out, and what is there already is not measured again.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

SIDES = ("palavra", "peer")
BATCH, EPOCHS, WARMUP, DECAY, CLIP = 32, 2.0, 0.1, 0.01, 1.0


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One task: its kind, the suffix of its files, and how many of its training examples are taken at random,
    None for all."""

    name: str
    kind: Literal["classification", "regression", "token-classification"]
    metric: str
    examples: int | None
    suffix: str = "jsonl"
    learning_rate: float = 1e-4


SETTINGS = (
    Setting(name="trec", kind="classification", metric="accuracy", examples=None),
    Setting(name="mrpc", kind="classification", metric="accuracy", examples=2000),
    Setting(name="stsb", kind="regression", metric="pearson", examples=2000),
    Setting(name="sst2", kind="classification", metric="accuracy", examples=4000),
    Setting(name="conll2003", kind="token-classification", metric="f1", examples=2000, suffix="conll"),
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run."""

    setting: Setting
    side: str
    seed: int
    model: str
    data: str


def load_task(job: Job) -> tuple[Any, list[Any], list[Any]]:
    """The task with its training and test examples, by Palavra's readers; both sides get the same ones."""
    import numpy as np

    from palavra.tasks.registry import KINDS
    from palavra.tasks.spec import Columns, TaskSpec

    folder = Path(job.data) / job.setting.name
    pair = job.setting.name == "stsb"
    columns = Columns(text_a="text_a", text_b="text_b", label=("score",)) if pair else Columns()
    spec = TaskSpec(kind=job.setting.kind, train=str(folder / f"train.{job.setting.suffix}.gz"), columns=columns)
    train = KINDS[spec.kind].read(spec, spec.train)
    order = np.random.default_rng(0).permutation(len(train))[: job.setting.examples]
    train = [train[i] for i in sorted(order.tolist())]
    task: Any = KINDS[spec.kind].fit(spec, train)
    test = KINDS[spec.kind].read(task.spec, str(folder / f"test.{job.setting.suffix}.gz"))
    if job.setting.kind == "token-classification":  # a rare tag of the test set that the sample lacks
        known = set(task.labels)
        test = [example for example in test if set(example.labels) <= known]
    return task, train, test


def palavra(job: Job) -> dict[str, float]:
    """The run in Palavra."""
    from palavra.finetuning.run import finetune_splits
    from palavra.finetuning.splits import Split
    from palavra.log import Log
    from palavra.recipe import FinetuneConfig, FinetuneRecipe
    from palavra.training.config import OptimizerConfig, ScheduleConfig

    task, train, test = load_task(job)
    recipe = FinetuneRecipe(
        model=job.model,
        tasks=(task.spec,),
        optimizer=OptimizerConfig(
            name="adamw", learning_rate=job.setting.learning_rate, weight_decay=DECAY, beta2=0.999, clip=CLIP
        ),
        schedule=ScheduleConfig(name="linear", warmup=WARMUP),
        train=FinetuneConfig(epochs=EPOCHS, batch_size=BATCH, seed=job.seed, eval_every=10**9, precision="bfloat16"),
    )
    with tempfile.TemporaryDirectory() as out:
        split = Split(task=task, train=train, valid=[], test=[])
        done = finetune_splits(recipe, [split], Path(out) / "run", Log(quiet=True))
        score = _score(str(done.directory), job, test)
    return {"score": score, "rate": done.examples_per_second}


def peer(job: Job) -> dict[str, float]:
    """The run with the Trainer of transformers."""
    import transformers

    task, train, test = load_task(job)
    tokenizer = transformers.AutoTokenizer.from_pretrained(job.model)
    model = _peer_model(job, task)
    dataset = [_encode(tokenizer, task, example) for example in train]
    with tempfile.TemporaryDirectory() as out:
        options = transformers.TrainingArguments(
            output_dir=out, use_cpu=True, bf16=True, optim="adamw_torch_fused", learning_rate=job.setting.learning_rate,
            weight_decay=DECAY, max_grad_norm=CLIP, num_train_epochs=EPOCHS, per_device_train_batch_size=BATCH,
            lr_scheduler_type="linear", warmup_steps=WARMUP, seed=job.seed, dataloader_pin_memory=False,
            logging_strategy="no", save_strategy="no", eval_strategy="no", report_to=[], disable_tqdm=True,
        )  # fmt: skip
        labelling = job.setting.kind == "token-classification"
        collator = (
            transformers.DataCollatorForTokenClassification if labelling else transformers.DataCollatorWithPadding
        )
        clock = _clock()
        trainer = transformers.Trainer(
            model=model, args=options, train_dataset=dataset, data_collator=collator(tokenizer), callbacks=[clock]
        )
        trainer.train()
        model.eval().save_pretrained(out)
        tokenizer.save_pretrained(out)
        score = _score(out, job, test, task)
    return {"score": score, "rate": EPOCHS * len(train) / (clock.ended - clock.began)}


def _clock() -> Any:
    """A callback that knows when the first step `began` and the last one `ended`."""
    import transformers

    class Clock(transformers.TrainerCallback):
        began: float | None = None
        ended = 0.0

        def on_step_begin(self, *args: Any, **values: Any) -> None:
            self.began = self.began or time.perf_counter()

        def on_step_end(self, *args: Any, **values: Any) -> None:
            self.ended = time.perf_counter()

    return Clock()


def _peer_model(job: Job, task: Any) -> Any:
    import transformers

    if job.setting.kind == "regression":
        return transformers.AutoModelForSequenceClassification.from_pretrained(
            job.model, num_labels=1, problem_type="regression"
        )
    labels = dict(enumerate(task.labels))
    names = {"id2label": labels, "label2id": {label: number for number, label in labels.items()}}
    if job.setting.kind == "token-classification":
        return transformers.AutoModelForTokenClassification.from_pretrained(job.model, **names)
    return transformers.AutoModelForSequenceClassification.from_pretrained(job.model, **names)


def _encode(tokenizer: Any, task: Any, example: Any) -> dict[str, Any]:
    if task.spec.kind == "token-classification":
        encoded = tokenizer(list(example.words), is_split_into_words=True, truncation=True)
        words = encoded.word_ids()
        number = {label: i for i, label in enumerate(task.labels)}
        first = [word is not None and (i == 0 or words[i - 1] != word) for i, word in enumerate(words)]
        labels = [number[example.labels[word]] if ok else -100 for word, ok in zip(words, first, strict=True)]
        return {**encoded, "labels": labels}
    encoded = tokenizer(example.first, example.second, truncation=True)
    label = float(example.label[0]) if task.spec.kind == "regression" else task.labels.index(example.label[0])
    return {**encoded, "labels": label}


def _score(directory: str, job: Job, test: list[Any], task: Any = None) -> float:
    """A saved model, read back and scored in float32; with the `task` where it is transformers that saved it."""
    from palavra.inference.finetuned import FineTunedModel

    loaded = FineTunedModel.load(directory)
    model = loaded if task is None else replace(loaded, tasks={"task": task})
    return float(model.score(test).values.get(job.setting.metric, float("nan")))


def measure(job: Job) -> dict[str, float]:
    """Run a job in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--job", json.dumps(asdict(job)), "-", "-"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{job}\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(settings: Sequence[Setting], rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The results so far, as markdown."""
    yield "| task | metric | seeds | Palavra | Trainer | Palavra examples/s | Trainer examples/s | times |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for setting in settings:
        ours, theirs = ([row for row in rows if _key(setting, side).items() <= row.items()] for side in SIDES)
        if not ours or not theirs:
            continue
        rates = [statistics.median(row["rate"] for row in side) for side in (ours, theirs)]
        name = f"{setting.name} ({f'{setting.examples:,}' if setting.examples else 'all'} examples)"
        yield (
            f"| {name} | {setting.metric} | {min(len(ours), len(theirs))} | {_mean(ours)} | {_mean(theirs)} | "
            f"{rates[0]:.0f} | {rates[1]:.0f} | {rates[0] / rates[1]:.1f} |"
        )


def _key(setting: Setting, side: str) -> dict[str, Any]:
    return {"task": setting.name, "examples": setting.examples, "side": side}


def _mean(rows: Sequence[dict[str, Any]]) -> str:
    scores = [100 * row["score"] for row in rows]
    spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
    return f"{statistics.mean(scores):.2f}{spread}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a pretrained model")
    parser.add_argument("data", help="folder with a folder for each task")
    parser.add_argument("--tasks", nargs="*", default=[setting.name for setting in SETTINGS])
    parser.add_argument("--whole", action="store_true", help="take the whole training sets")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("finetuning.jsonl"))
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        values = json.loads(options.job)
        job = Job(**{**values, "setting": Setting(**values["setting"])})
        print(json.dumps({"palavra": palavra, "peer": peer}[job.side](job)))
        return
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    settings = [setting for setting in SETTINGS if setting.name in options.tasks]
    if options.whole:
        settings = [replace(setting, examples=None) for setting in settings]
    for seed in range(options.seeds):
        for setting in settings:
            for side in SIDES if seed % 2 else SIDES[::-1]:
                key = {**_key(setting, side), "seed": seed}
                if any(key.items() <= row.items() for row in rows):
                    continue
                job = Job(setting=setting, side=side, seed=seed, model=options.model, data=options.data)
                rows.append({**key, **measure(job)})
                print(f"  {rows[-1]}", flush=True)
                with options.out.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print("\n" + "\n".join(table(settings, rows)))


if __name__ == "__main__":
    main()
