"""Evaluate next-sentence prediction."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from palavra.data.loader import assemble
from palavra.data.packing import Cursor, one_pass
from palavra.inference.batching import BATCH_TOKENS, evaluating, placed
from palavra.inference.corruption import CORRUPTION_SEED
from palavra.inference.evaluation import EvalSet, ObjectiveResult
from palavra.model.compute import Compute
from palavra.model.finite import check_numbers
from palavra.model.next_sentence import NextSentenceModel
from palavra.objectives.next_sentence import NextSentenceObjective
from palavra.run_records.pretraining import PairResult


@dataclass(frozen=True, kw_only=True)
class PairEvaluation(PairResult, ObjectiveResult):
    """Results at pairs, as commands print them."""

    _recorded: ClassVar[tuple[str, ...]] = ("loss", "accuracy")

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


def evaluate_next_sentence(
    model: NextSentenceModel, held_out: EvalSet, objective: NextSentenceObjective, compute: Compute, *,
    limit: int | None = None,
) -> PairEvaluation:  # fmt: skip
    """Evaluate the second head on about `limit` tokens of held-out text (None: all), none of them masked. The pairs are
    made as in training, always the same."""
    losses, right, labels = [], [], []
    seen = 0
    with evaluating(model, compute):
        for number, pieces in enumerate(one_pass(held_out.lengths, objective.context, BATCH_TOKENS, special=3)):
            packed = assemble(held_out.documents, pieces, held_out.cls_id, held_out.sep_id, Cursor())
            batch = objective.uncorrupted(packed, np.random.default_rng([CORRUPTION_SEED, number]))
            moved, layout = placed(batch, compute)
            logits = model.follows(model(moved, layout, moved.pair_rows)).float()
            check_numbers(logits)
            losses.append(F.cross_entropy(logits, moved.pair_labels, reduction="none").cpu())
            own, other = (logits.gather(1, of[:, None])[:, 0] for of in (moved.pair_labels, 1 - moved.pair_labels))
            # Equal logits are right half of the time.
            right.append((0.5 + 0.5 * (own - other).sign()).cpu())
            labels.append(batch.pair_labels)
            seen += batch.tokens
            if limit is not None and seen >= limit:
                break
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
