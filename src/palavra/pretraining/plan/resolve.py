"""Filling in what a recipe leaves open: the size of the model, and the number of steps."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from palavra.data.loader import Packed
from palavra.data.packing import Cursor, Packer, Pieces
from palavra.errors import PalavraError
from palavra.log import Log
from palavra.model.compute import Compute
from palavra.model.directory import read_config
from palavra.model.heads import VocabularyModel
from palavra.pretraining.corpus import InMemory
from palavra.pretraining.objectives import pretraining_objective
from palavra.pretraining.objectives.masked import TextObjective
from palavra.pretraining.plan.memory import fit_micro_batch, timing_recipe
from palavra.pretraining.plan.model_size import SizeCandidate, choose_size
from palavra.pretraining.plan.scaling_law import size_for_tokens
from palavra.pretraining.plan.timing import TimingRun, step_seconds
from palavra.recipe import SIZES, FamilyName, Recipe, SizeName
from palavra.tokenizer import Tokenizer

DEFAULT_MINUTES = 10.0
VALIDATIONS = 10
# Share of a time budget left for validation, checkpoints and the noise of the machine.
RESERVE = 0.04
# One thread is chosen over all only where it is clearly faster: other programs come and go.
WORTH_FEWER_THREADS = 1.25
TOKENS_TO_TIME_THREADS = 8192


@dataclass(frozen=True, kw_only=True)
class CorpusStats:
    """What choosing a size needs of the text: how much there is, with the special tokens of a
    recipe's pieces too (`epoch_tokens`), and batches of it for a recipe; a vocabulary of so many entries, and its
    tokenizer where there is one yet."""

    vocab_size: int
    tokenizer: Tokenizer | None
    unique_tokens: int
    epoch_tokens: Callable[[Recipe], int]
    packed: Callable[[Recipe], Iterator[Packed]]

    def timing_run(self, recipe: Recipe) -> TimingRun:
        """A measurement of this recipe on this text."""
        objective = pretraining_objective(recipe).objective(
            recipe, self.vocab_size, self.tokenizer, float(recipe.model.context or 0)
        )
        return TimingRun(recipe=recipe, packed=self.packed(recipe), objective=objective)


@dataclass(frozen=True, kw_only=True)
class ResolvedRecipe:
    """A recipe with every size filled in, and how that came about."""

    recipe: Recipe
    rule: tuple[str, ...] = ()
    candidates: tuple[SizeCandidate, ...] = ()


def synthetic(vocab_size: int) -> Callable[[Recipe], Iterator[Packed]]:
    """Batches of random documents in full contexts: as expensive as text, for a machine that has not read it yet."""

    def packed(recipe: Recipe) -> Iterator[Packed]:
        context, budget = recipe.model.context, recipe.train.micro_batch_tokens
        assert context and budget
        template, count = pretraining_objective(recipe).template, max(2, budget // context)
        length = context - template.special - template.opening
        text = InMemory(np.random.default_rng(0).integers(vocab_size, size=(count, length)).tolist())
        every = np.arange(max(1, budget // context))
        pieces = Pieces(document=every, start=np.zeros_like(every), stop=template.framed(text.lengths)[every])
        while True:
            yield template.assemble(text, pieces, 0, 1, Cursor())

    return packed


def seconds_of(recipe: Recipe) -> float:
    """The time budget in seconds: the one given, or the default one."""
    return 60 * (recipe.train.minutes or DEFAULT_MINUTES)


def settle_threads(recipe: Recipe, text: CorpusStats, compute: Compute) -> tuple[Recipe, str]:
    """Set the number of threads for this process, and say which: the recipe's, or the faster of all and one.

    A core that another program keeps busy holds up every step of the others: there one thread can be several
    times as fast as two. Results depend on the number bit for bit, so it becomes part of the recipe.
    """
    everything = torch.get_num_threads()
    threads, why = recipe.train.threads, "as the recipe says"
    if threads is None and (compute.device.type != "cpu" or everything == 1):
        threads, why = everything, "all"
    elif threads is None:
        seconds = {count: _seconds_with(count, recipe, text, compute) for count in (everything, 1)}
        threads = 1 if seconds[1] * WORTH_FEWER_THREADS < seconds[everything] else everything
        why = ", ".join(f"{each * 1000:.0f} ms a step with {count}" for count, each in seconds.items())
        if threads != everything:
            why += "; the other cores are busy"
    torch.set_num_threads(threads)
    recipe = replace(recipe, train=replace(recipe.train, threads=threads))
    return recipe, f"threads: {threads} ({why})"


def _seconds_with(threads: int, recipe: Recipe, text: CorpusStats, compute: Compute) -> float:
    """Seconds of a step of the smallest size with so many threads."""
    torch.set_num_threads(threads)
    sized = timing_recipe(recipe.of_size("nano"), TOKENS_TO_TIME_THREADS)
    model = pretraining_objective(sized).new(sized.model.build(text.vocab_size, None))
    timing_run = text.timing_run(sized)
    return step_seconds(model, timing_run.objective, timing_run, compute, steps=5, patience=5.0)


def choose(recipe: Recipe, text: CorpusStats, compute: Compute) -> ResolvedRecipe:
    """Fill in the sizes: those of `init`, those of the size that was named, or those the budget picks; and the tokens
    that go through the model at once, by the memory there is. Raises OutOfMemory where it holds too few."""
    choice = _choose_size(recipe, text, compute)
    chosen = choice.recipe
    config = read_config(Path(chosen.init)) if chosen.init else chosen.model.build(text.vocab_size, None)
    settled, lines = fit_micro_batch(chosen, recipe.train.micro_batch_tokens, config, compute)
    return replace(choice, recipe=settled, rule=(*choice.rule, *lines))


def _choose_size(recipe: Recipe, text: CorpusStats, compute: Compute) -> ResolvedRecipe:
    if recipe.init:
        return _sizes_of_init(recipe)
    if recipe.model.size != "auto":
        return ResolvedRecipe(
            recipe=recipe.of_size(recipe.model.size), rule=(f"size: {recipe.model.size} (requested)",)
        )
    train = recipe.train
    if any((train.steps, train.tokens, train.epochs)):

        def tokens_of(name: SizeName) -> float:
            return run_tokens(recipe.of_size(name), text.epoch_tokens(recipe.of_size(name)))

        name = size_for_tokens(tokens_of, text.unique_tokens)
        return ResolvedRecipe(recipe=recipe.of_size(name), rule=(f"size: {name} (for {tokens_of(name):,.0f} tokens)",))
    sized, candidates = choose_size(
        recipe,
        seconds_of(recipe) * (1 - RESERVE),
        text.unique_tokens,
        text.vocab_size,
        compute,
        text.timing_run,
    )
    rule = [f"budget: {seconds_of(recipe) / 60:g} minutes, {text.unique_tokens:,} tokens of text"]
    if train.minutes is None:
        rule[0] += " (no length was given)"
    rule += [
        f"size {c.size}: {c.tokens_per_second:,.0f} tokens/s measured uncompiled, {c.tokens:,.0f} tokens in the time, "
        f"rule's loss {c.predicted_loss:.3f}{'  <- chosen' if c.chosen else ''}"
        for c in candidates
    ]
    return ResolvedRecipe(recipe=sized, rule=tuple(rule), candidates=tuple(candidates))


def _sizes_of_init(recipe: Recipe) -> ResolvedRecipe:
    """Continue a model: its own architecture; context, batch and rate from the size nearest in width."""
    assert recipe.init is not None
    config = read_config(Path(recipe.init))
    nearest = min(
        SIZES,
        key=lambda name: (
            abs(SIZES[name].hidden_size - config.hidden_size) + abs(SIZES[name].num_layers - config.num_layers)
        ),
    )
    sized = recipe.of_size(nearest)
    context = min(recipe.model.context or SIZES[nearest].context, config.context)
    model = replace(
        sized.model,
        size="auto",
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        intermediate_size=config.intermediate_size,
        context=context,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
    )
    if config.family in get_args(FamilyName):
        model = replace(model, family=config.family)  # type: ignore[arg-type]
    optimizer = sized.optimizer
    if recipe.optimizer.learning_rate is None:
        # A trained model is moved with care: at the full rate it would first forget.
        optimizer = replace(optimizer, learning_rate=optimizer.max_lr / 5)
    return ResolvedRecipe(
        recipe=replace(sized, model=model, optimizer=optimizer),
        rule=(f"size: that of {recipe.init}; batch and learning rate as for {nearest}",),
    )


def run_tokens(recipe: Recipe, epoch_tokens: int) -> float:
    """Tokens that a run of settled size and of a length in steps, tokens or epochs will see."""
    assert recipe.train.batch_tokens
    return float((steps_of_length(recipe, epoch_tokens) or 0) * recipe.train.batch_tokens)


def steps_of_length(recipe: Recipe, epoch_tokens: int) -> int | None:
    """Steps of a run whose length is in steps, tokens or, as if all batches were full, epochs; None when it is in
    minutes."""
    train = recipe.train
    assert train.batch_tokens
    if train.steps is not None:
        return train.steps
    if train.tokens is not None:
        return max(1, round(train.tokens / train.batch_tokens))
    return None if train.epochs is None else max(1, math.ceil(train.epochs * epoch_tokens / train.batch_tokens))


def with_steps(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with its length in steps, and validation and checkpoints spread over them where left open."""
    train = recipe.train
    every = -(-steps // VALIDATIONS)  # rounded up: the last of them falls on the last step
    return replace(
        recipe,
        train=replace(train, steps=steps, eval_every=train.eval_every or every, save_every=train.save_every or every),
    )


def fix_steps(
    recipe: Recipe,
    model: VocabularyModel,
    objective: TextObjective,
    text: CorpusStats,
    packer: Packer,
    compute: Compute,
    log: Log,
) -> tuple[int, str]:
    """The number of steps of this run and a line that says where it comes from.

    A length in epochs is counted in the batches that `packer` plans. One in minutes is measured: a few real steps
    (which also compile) say what one takes, and the minutes, which are those of training with its validations, how many
    there are. It becomes part of the recipe, so the run can be repeated.
    """
    assert recipe.train.batch_tokens
    train = recipe.train
    if train.steps is None and train.tokens is None and train.epochs is not None:
        with log.live("planning the batches of all passes", 1.0) as live:
            batches = packer.run_batches(live.update)
        counted = max(1, math.ceil(batches / (train.micro_batches(packer.ranks) * packer.ranks)))
        return counted, f"length: {counted:,} steps of {train.batch_tokens:,} tokens ({train.epochs:g} passes)"
    steps = steps_of_length(recipe, text.epoch_tokens(recipe))
    if steps is not None:
        return steps, f"length: {steps:,} steps of {recipe.train.batch_tokens:,} tokens"
    budget = seconds_of(recipe)
    each = step_seconds(model, objective, text.timing_run(recipe), compute, steps=40, patience=0.1 * budget)
    stepping = budget * (1 - RESERVE)
    steps = int(stepping / each)
    if steps < 1:
        raise PalavraError(
            f"{budget / 60:g} minutes are too few for one step of this model ({each:.1f} s): give more --minutes "
            "or a smaller --size"
        )
    return steps, (
        f"length: {steps:,} steps of {recipe.train.batch_tokens:,} tokens ({each * 1000:.1f} ms a step measured; "
        f"{stepping:.0f} of {budget:.0f} s, the rest for validation)"
    )
