"""Evaluate next-sentence prediction."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from palavra.data.loader import assemble
from palavra.data.packing import Cursor, one_pass
from palavra.inference.corruption import CORRUPTION_SEED
from palavra.inference.evaluation import BATCH_TOKENS, EvalSet
from palavra.model.compute import Compute, eager
from palavra.model.heads import lay_out
from palavra.model.next_sentence import NextSentenceModel
from palavra.objectives.next_sentence import NextSentenceObjective
from palavra.run_records import PairResult


@dataclass(frozen=True, kw_only=True)
class PairEvaluation(PairResult):
    """Results at pairs, as commands print them."""

    def values(self) -> dict[str, float]:
        """Return the values that each evaluation during training records; none without pairs."""
        known = {"loss": self.loss, "accuracy": self.accuracy}
        return {name: value for name, value in known.items() if value is not None}

    def brief(self) -> str:
        """Return the accuracy and its baseline in a few words."""
        if self.accuracy is None or self.baseline is None:
            return "accuracy unknown: no pairs, for there is one document"
        return f"accuracy {self.accuracy:.1%} (always the same answer: {self.baseline:.1%})"

    def lines(self) -> list[str]:
        """Return the lines that the command line prints."""
        found = [f"pairs             {self.pairs:,}"]
        named = {"exchanged": self.exchanged, "accuracy": self.accuracy, "  same answer": self.baseline}
        if self.loss is not None:
            found.append(f"loss              {self.loss:.4f} nats a pair")
        return found + [f"{name:<17} {value:.1%}" for name, value in named.items() if value is not None]

    def to_json(self) -> dict[str, Any]:
        """Return what is written to a file."""
        return asdict(self)


def evaluate_next_sentence(
    model: NextSentenceModel, held_out: EvalSet, objective: NextSentenceObjective, compute: Compute, *,
    limit: int | None = None,
) -> PairEvaluation:  # fmt: skip
    """How well the second head tells pairs apart, on about `limit` tokens of held-out text (None: all), none masked.

    The pairs are made as in training, the same ones every time.
    """
    was_training = model.training
    model.eval()
    losses, right, labels = [], [], []
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
            labels.append(batch.pair_labels)
            seen += batch.tokens
            if limit is not None and seen >= limit:
                break
    model.train(was_training)
    pairs = sum(map(len, losses))
    if not pairs:
        return PairEvaluation(pairs=0)
    exchanged = float(torch.cat(labels).double().mean())
    return PairEvaluation(
        pairs=pairs,
        exchanged=exchanged,
        loss=float(torch.cat(losses).double().mean()),
        accuracy=float(torch.cat(right).double().mean()),
        baseline=max(exchanged, 1 - exchanged),
    )
