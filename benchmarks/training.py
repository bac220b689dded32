"""Speed and memory of pretraining, side by side with the Trainer of transformers, in one run on one machine.

    python benchmarks/training.py                   # the tables, three quarters of an hour on 2 cores
    python benchmarks/training.py --quick           # the same with fewer steps and one round
    python benchmarks/training.py --setting Llama   # one of the settings

Needs `transformers` and `accelerate` beside the package. What is compared, and how:

- The peer is `Trainer` with `DataCollatorForLanguageModeling` (masked or causal, as the family is) on concatenated
  blocks: no padding, no attention mask, bf16, fused AdamW, no logging, saving or evaluation; once eager and once with
  `torch_compile`. Short trials
  choose its attention (sdpa or eager) and its data loader's workers; the best is what is measured.
- Palavra runs what `palavra pretrain` runs: loader, packer, objective and loop, compiled. It sees the
  same blocks as the peer; in one more row documents of mixed lengths packed without padding, and in another each
  step in two micro-batches, which gives the same gradient with less memory.
- Both: same architecture, same tokens a batch, no dropout, gradients clipped at 1, 15% of the tokens sampled.
- A round measures every side once, each in a process of its own. Its rate is tokens a step over the median
  seconds of a step after the warm-up; the table has the median of the rounds. Memory is the process's own peak
  resident set after the warm-up: compiler processes do not count, what compiling left in the process does (Linux).
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PAD, UNK, CLS, SEP, MASK = range(5)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A model and its batch: 4,096 tokens, that of Palavra's size "mini", which is this wide and deep."""

    name: str
    family: str
    context: int
    width: int = 256
    layers: int = 4
    heads: int = 4
    intermediate: int | None = None
    batch_tokens: int = 8192
    vocabulary: int = 30_522

    @property
    def causal(self) -> bool:
        """Whether the next token is predicted, not a masked one."""
        return self.family == "llama"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One measurement: who ("palavra" or "peer"), on what, and how long; `micro_batches` of a step (palavra only)."""

    setting: Setting
    side: str
    warmup: int
    steps: int
    mixed: bool = False
    micro_batches: int = 1
    compiled: bool = False
    attention: str = "sdpa"
    workers: int = 0


@dataclass(frozen=True, kw_only=True)
class Result:
    """Tokens a second; peak resident MiB; share of the measured matrix-product peak (palavra only)."""

    rate: float
    memory: float
    peak_share: float = 0.0
    peak: float = 0.0


COMPARED = (
    Setting(name="BERT 256x4, context 128", family="bert", context=128, intermediate=1024),
    Setting(name="ModernBERT 256x4, context 512", family="modernbert", context=512),
    Setting(name="Llama 256x4, context 256", family="llama", context=256, vocabulary=32_000),
)
LARGER = tuple(
    Setting(name=f"{label} 512x8, context {context}", family=family, context=context, width=512, layers=8, heads=8)
    for label, family in (("BERT", "bert"), ("ModernBERT", "modernbert"))
    for context in (128, 256)
)


class Clock:
    """Times steps; the peak of memory starts anew when the warm-up is over."""

    def __init__(self, warmup: int):
        self.warmup = warmup
        self.times: list[float] = []
        self.last = time.perf_counter()

    def step(self) -> None:
        now = time.perf_counter()
        self.times.append(now - self.last)
        if len(self.times) == self.warmup:
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM := VmRSS (man 5 proc)
        self.last = time.perf_counter()

    def result(self, job: Job, **more: float) -> Result:
        lines = Path("/proc/self/status").read_text().splitlines()
        kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        return Result(rate=job.setting.batch_tokens / self.seconds, memory=kib / 1024, **more)

    @property
    def seconds(self) -> float:
        return statistics.median(self.times[self.warmup :])


class RandomDocuments:
    """Documents of ordinary random tokens, read like those on disk."""

    def __init__(self, lengths: npt.NDArray[np.int64], vocabulary: int):
        self.lengths = lengths
        self.tokens = np.random.default_rng(0).integers(5, vocabulary, 2**20).astype(np.uint16)

    def gather(
        self, indices: npt.NDArray[np.int64], starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.uint16]:
        places = (indices * 997 + starts) % (len(self.tokens) // 2)
        return np.concatenate([self.tokens[a : a + n] for a, n in zip(places, stops - starts, strict=True)])


def palavra(job: Job) -> Result:
    """What `palavra pretrain` does, on random documents."""
    import torch

    from palavra.data.loader import packed_batches
    from palavra.data.packing import Packer
    from palavra.model.compute import choose_compute, compile_layers, matmul_peak
    from palavra.model.heads import CausalLanguageModel, MaskedLanguageModel
    from palavra.model.transformer import matmul_flops
    from palavra.objectives.causal import CausalObjective
    from palavra.objectives.config import MaskingConfig
    from palavra.objectives.masked import MaskedObjective, Vocabulary, softmax_kernel
    from palavra.training.config import OptimizerConfig, ScheduleConfig
    from palavra.training.loop import LoopConfig, in_steps, prepare_steps, train
    from palavra.training.optimizers import build_optimizers

    setting, context = job.setting, job.setting.context
    lengths = np.full(2**13, context - 2)
    if job.mixed:
        lengths = np.random.default_rng(1).lognormal(5.0, 1.0, 2**13).clip(1, 2**12).astype(np.int64)
    documents = RandomDocuments(lengths, setting.vocabulary)
    compute = choose_compute(compiled="on")
    model = (CausalLanguageModel if setting.causal else MaskedLanguageModel)(_architecture(setting))
    compile_layers(model.transformer.layers, compute)
    entries = np.ones(setting.vocabulary, dtype=bool)
    vocabulary = Vocabulary(setting.vocabulary, MASK, frozenset(range(5)), entries)
    masked = MaskedObjective(MaskingConfig(mask_rate=0.15), vocabulary, softmax_kernel(compute))
    objective: Any = CausalObjective(softmax_kernel(compute)) if setting.causal else masked
    part = setting.batch_tokens // job.micro_batches
    packer = Packer(lengths=lengths, context=context, batch_tokens=part, seed=0)
    optimizers = build_optimizers(model.named_parameters(), OptimizerConfig(learning_rate=1e-3))
    config = LoopConfig(steps=job.warmup + job.steps, schedule=ScheduleConfig(), clip=1.0, seed=0, row_width=context)
    packed = in_steps(packed_batches(documents, packer, CLS, SEP), job.micro_batches)
    steps = prepare_steps(packed, objective, config, compute, 0)
    clock = Clock(job.warmup)
    flops = []
    for report in train(model, objective, steps, optimizers, config, compute):
        clock.step()
        sequence = context if not job.mixed else int(np.minimum(lengths + 2, context).mean())
        flops.append(matmul_flops(model.config, report.tokens, report.labelled, sequence))
    result = clock.result(job)
    peak = matmul_peak(compute)
    share = statistics.median(flops) / clock.seconds / peak
    assert torch.isfinite(report.loss)
    return replace(result, peak=peak, peak_share=share)


def peer(job: Job) -> Result:
    """`transformers.Trainer` on the same blocks."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models

    setting, context = job.setting, job.setting.context
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = {name: i for i, name in enumerate(names)} | {f"t{i}": i for i in range(5, setting.vocabulary)}
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="[UNK]")),
        pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]",
        model_input_names=["input_ids"],  # full blocks need no attention mask, and are faster without
    )  # fmt: skip
    batch = setting.batch_tokens // context
    blocks = torch.randint(5, setting.vocabulary, (64 * batch, context))
    blocks[:, 0], blocks[:, -1] = CLS, SEP
    special = torch.zeros(context, dtype=torch.long)
    special[[0, -1]] = 1
    more = {} if setting.causal else {"special_tokens_mask": special}
    dataset = [{"input_ids": block, **more} for block in blocks]
    collator = transformers.DataCollatorForLanguageModeling(
        tokenizer, mlm=not setting.causal, mlm_probability=None if setting.causal else 0.15
    )
    clock = Clock(job.warmup)

    class Timer(transformers.TrainerCallback):
        def on_step_end(self, *arguments: Any, **options: Any) -> None:
            clock.step()

    with tempfile.TemporaryDirectory() as directory:
        options = transformers.TrainingArguments(
            output_dir=directory, use_cpu=True, bf16=True, optim="adamw_torch_fused", learning_rate=1e-3,
            weight_decay=0.01, max_grad_norm=1.0, max_steps=job.warmup + job.steps,
            per_device_train_batch_size=batch, torch_compile=job.compiled, dataloader_num_workers=job.workers,
            dataloader_pin_memory=False, logging_strategy="no", save_strategy="no", eval_strategy="no",
            report_to=[], disable_tqdm=True,
        )  # fmt: skip
        transformers.Trainer(
            model=_peer_model(setting, job.attention), args=options, train_dataset=dataset, callbacks=[Timer()],
            data_collator=collator,
        ).train()  # fmt: skip
    return clock.result(job)


def _architecture(setting: Setting) -> Any:
    """The configuration that both sides build."""
    from palavra.model.families import FAMILIES

    return FAMILIES[setting.family].new(
        vocab_size=setting.vocabulary, hidden_size=setting.width, num_layers=setting.layers, num_heads=setting.heads,
        context=setting.context, intermediate_size=setting.intermediate,
    )  # fmt: skip


def _peer_model(setting: Setting, attention: str) -> Any:
    """The same architecture as Palavra's, from the configuration that Palavra writes."""
    import transformers

    from palavra.model.families import FAMILIES

    values = {**FAMILIES[setting.family].write(_architecture(setting)), "pad_token_id": PAD}
    values |= {"cls_token_id": CLS, "sep_token_id": SEP, "bos_token_id": CLS, "eos_token_id": SEP}
    config = transformers.AutoConfig.for_model(values.pop("model_type"), **values)
    kind: Any = transformers.AutoModelForCausalLM if setting.causal else transformers.AutoModelForMaskedLM
    return kind.from_config(config, attn_implementation=attention)


def measure(job: Job) -> Result:
    """Run a job in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--job", json.dumps(asdict(job))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{job}\n{done.stderr[-4000:]}")
    return Result(**json.loads(done.stdout.splitlines()[-1]))


def work(text: str) -> None:
    """Inside that process: do the job, print the result."""
    values = json.loads(text)
    job = Job(**{**values, "setting": Setting(**values["setting"])})
    print(json.dumps(asdict((palavra if job.side == "palavra" else peer)(job))))


def best_peer(setting: Setting, *, compiled: bool) -> Job:
    """The peer where a few steps say that it is fastest."""
    base = Job(setting=setting, side="peer", compiled=compiled, warmup=3, steps=6)
    trials = [replace(base, attention=attention) for attention in ("sdpa", "eager")]
    rates = {job: measure(job).rate for job in trials}
    quickest = max(rates, key=lambda job: rates[job])
    # Compilation has nothing to do with how data are loaded: one trial of it is enough.
    if not compiled:
        with_worker = replace(quickest, workers=1)
        rates[with_worker] = measure(with_worker).rate
    for job, rate in rates.items():
        print(f"  trial {setting.name}, {_label(job)}: {rate:,.0f} tokens/s", flush=True)
    return max(rates, key=lambda job: rates[job])


def _label(job: Job) -> str:
    if job.side == "palavra":
        halves = f", {job.micro_batches} micro-batches" if job.micro_batches > 1 else ""
        return ("Palavra, mixed lengths" if job.mixed else "Palavra") + halves
    return f"Trainer, {'compiled' if job.compiled else 'eager'} ({job.attention}, {job.workers} workers)"


def rounds(jobs: list[Job], count: int) -> Iterator[tuple[Job, Result]]:
    """Every job `count` times, in turns; prints each, yields the medians."""
    found: dict[Job, list[Result]] = {job: [] for job in jobs}
    for number in range(count):
        for job in jobs:
            result = measure(job)
            found[job].append(result)
            line = f"  round {number + 1}: {job.setting.name}, {_label(job)}: {result.rate:,.0f} tokens/s"
            print(f"{line}, {result.memory:,.0f} MiB, {result.peak_share:.0%} of peak", flush=True)
    for job, results in found.items():
        fields = asdict(results[0])
        yield job, Result(**{name: statistics.median(getattr(r, name) for r in results) for name in fields})


def compare(setting: Setting, *, quick: bool) -> list[str]:
    """The table's rows of one setting."""
    warmup, steps = (4, 6) if quick else (4, 8)
    peers = [replace(best_peer(setting, compiled=compiled), warmup=warmup, steps=steps) for compiled in (False, True)]
    if peers[0].workers:
        peers[1] = replace(peers[1], workers=peers[0].workers)
    ours = Job(setting=setting, side="palavra", warmup=warmup, steps=3 * steps)
    sides = [*peers, ours, replace(ours, mixed=True), replace(ours, micro_batches=2)]
    medians = dict(rounds(sides, 1 if quick else 3))
    eager, compiled = (medians[job] for job in peers)
    return [
        f"| {setting.name} | {_label(job)} | {result.rate:,.0f} | {result.rate / eager.rate:.1f} | "
        f"{result.rate / compiled.rate:.1f} | {result.memory:,.0f} | {result.memory / eager.memory:.2f} | "
        f"{result.memory / compiled.memory:.2f} |"
        for job, result in medians.items()
    ]


def peak_rows(settings: tuple[Setting, ...], *, quick: bool) -> list[str]:
    """The rows of the second table."""
    jobs = [Job(setting=setting, side="palavra", warmup=4, steps=6 if quick else 10) for setting in settings]
    return [
        f"| {job.setting.name} | {result.rate:,.0f} | {result.peak / 1e9:,.0f} | {result.peak_share:.0%} | "
        f"{result.memory:,.0f} |"
        for job, result in rounds(jobs, 1 if quick else 3)
    ]


def machine() -> str:
    """Processor, cores and versions."""
    import os
    from importlib.metadata import version

    import torch
    import transformers

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    family = f"family {named.get('cpu family', '?')} model {named.get('model', '?')}"
    flags = [flag for flag in ("avx512_bf16", "amx_bf16") if flag in named.get("flags", "")]
    return (
        f"{named.get('model name', platform.processor())} ({family}, {' '.join(flags) or 'no bf16'}), "
        f"{os.cpu_count()} cores; Python {platform.python_version()}, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, accelerate {version('accelerate')}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of few steps")
    parser.add_argument("--only", choices=["compare", "peak"], help="one of the two tables")
    parser.add_argument("--setting", help="only settings whose name contains this")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        work(options.job)
        return

    def chosen(settings: tuple[Setting, ...]) -> tuple[Setting, ...]:
        return tuple(s for s in settings if options.setting is None or options.setting in s.name)

    tables = [machine()]
    if options.only != "peak":
        tables += [
            "",
            "| setting | side | tokens/s | x eager | x compiled | peak MiB | of eager | of compiled |",
            "|---|---|---:|---:|---:|---:|---:|---:|",
        ]
        for setting in chosen(COMPARED):
            tables += compare(setting, quick=options.quick)
    if options.only != "compare":
        tables += [
            "",
            "| Palavra | tokens/s | bf16 product peak, GFLOP/s | share of peak | peak MiB |",
            "|---|---:|---:|---:|---:|",
        ]
        tables += peak_rows(chosen(LARGER), quick=options.quick)
    print("\n" + "\n".join(tables))


if __name__ == "__main__":
    main()
