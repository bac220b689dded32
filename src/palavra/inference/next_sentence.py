"""How well a model tells which second part of a text follows the first."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from palavra.data.loader import assemble
from palavra.data.packing import Cursor, one_pass
from palavra.inference.corruption import CORRUPTION_SEED
from palavra.inference.evaluation import BATCH_TOKENS, Evaluation, HeldOut, evaluate_masked
from palavra.model.compute import Compute, eager
from palavra.model.heads import lay_out
from palavra.model.next_sentence import NextSentenceModel
from palavra.objectives.masked import Vocabulary
from palavra.objectives.next_sentence import NextSentenceObjective


@dataclass(frozen=True, kw_only=True)
class PairEvaluation:
    """Results over `pairs` of held-out text, half of them exchanged: `loss` in nats a pair (None without pairs),
    and the share that was told rightly."""

    pairs: int
    loss: float | None
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class NextSentenceEvaluation:
    """A masked model's results, and those of its second head."""

    masked: Evaluation
    next_sentence: PairEvaluation

    @property
    def loss(self) -> float:
        """That of the masked tokens."""
        return self.masked.loss

    @property
    def perplexity(self) -> float:
        """That of the masked tokens."""
        return self.masked.perplexity

    def lines(self) -> list[str]:
        """As people read it."""
        found = self.next_sentence
        told = "no pairs" if found.accuracy is None else f"{found.accuracy:.1%} of {found.pairs:,} pairs"
        return [*self.masked.lines(), f"next sentence     {told}"]

    def to_json(self) -> dict[str, Any]:
        """As written to `evaluation.json`."""
        return {**self.masked.to_json(), "next_sentence": vars(self.next_sentence)}


def evaluate_next_sentence(
    model: NextSentenceModel, held_out: HeldOut, vocabulary: Vocabulary, objective: NextSentenceObjective,
    compute: Compute, *, limit: int | None = None, counts: Any = None,
) -> NextSentenceEvaluation:  # fmt: skip
    """Both heads on about `limit` tokens of held-out text (None: all), the pairs without any masked token.

    Pieces are exchanged among those of a batch, the same ones every time.
    """
    masked = evaluate_masked(model, held_out, vocabulary, compute, limit=limit, counts=counts)
    was_training = model.training
    model.eval()
    losses, right = [], []
    seen = 0
    with torch.inference_mode(), compute.autocast(), eager():
        for number, pieces in enumerate(one_pass(held_out.lengths, objective.context, BATCH_TOKENS, special=3)):
            packed = assemble(held_out.documents, pieces, held_out.cls_id, held_out.sep_id, Cursor())
            batch = objective.uncorrupted(packed, np.random.default_rng([CORRUPTION_SEED, number]))
            layout = lay_out(batch, compute.backend, compute.device)
            moved = batch.to(compute.device)
            logits = model.follows(model(moved, layout, moved.pair_rows)).float()
            losses.append(F.cross_entropy(logits, moved.pair_labels, reduction="none").cpu())
            right.append((logits.argmax(-1) == moved.pair_labels).cpu())
            seen += batch.tokens
            if limit is not None and seen >= limit:
                break
    model.train(was_training)
    pairs = sum(map(len, losses))
    if not pairs:
        return NextSentenceEvaluation(masked=masked, next_sentence=PairEvaluation(pairs=0, loss=None, accuracy=None))
    found = PairEvaluation(
        pairs=pairs, loss=float(torch.cat(losses).double().mean()), accuracy=float(torch.cat(right).double().mean())
    )
    return NextSentenceEvaluation(masked=masked, next_sentence=found)
