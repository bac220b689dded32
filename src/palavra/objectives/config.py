"""Which tokens a pretraining objective hides, and how objectives are mixed."""

import math
from dataclasses import dataclass
from typing import Literal

from palavra.errors import PalavraError
from palavra.option import option

# Maximum words of a span (Joshi et al. 2020, section 3.1).
LONGEST_SPAN = 10


@dataclass(frozen=True, kw_only=True)
class MaskingConfig:
    """Which tokens are masked, and how. Word spans follow SpanBERT (Joshi et al. 2020, arXiv:1907.10529, section
    3.1)."""

    preset: Literal["bert"] | None = option(
        None,
        help="A recipe of masking in one word: bert masks 15% of the tokens throughout; 80% of them become [MASK], 10% "
        "a random token, and 10% stay.",
        flag="--preset",
        sets={
            "bert": {"mask_rate": 0.15, "final_mask_rate": None, "mask": 0.8, "random": 0.1, "unit": "token"},
        },
    )
    mask_rate: float = option(
        0.15,
        help="Fraction of the tokens to mask, at the start of the run; the flag sets it for the whole run.",
        flag="--mask-rate",
        replaces=("final_mask_rate",),
    )
    final_mask_rate: float | None = option(
        None, help="The same at the end of the run, linearly in between.", unset="the same throughout"
    )
    mask: float = option(0.8, help="Fraction of the masked tokens that become [MASK].")
    random: float = option(0.1, help="Fraction of the masked tokens that become a random token; the rest stay.")
    per_sequence: bool = option(
        False, help="Draw the fraction from each sequence, not from all tokens of a batch together."
    )
    static: bool = option(
        False,
        help="Draw once what is masked, and how, so that it is the same in every epoch; per sequence, at a rate that "
        "stays.",
    )
    unit: Literal["token", "word", "span"] = option("token", help="What is masked together.")
    span_words: float = option(
        3.0,
        help="Lengths of spans in words are geometric with 1/p of this, 1 to 10. None is above 10 words, so the mean "
        "is lower: 2.8 of 3, 3.8 of 5.",
        when={"unit": ("span",)},
    )

    def __post_init__(self) -> None:
        for name in ("mask_rate", "final_mask_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise PalavraError(f"masking.{name} is {value}: it must lie between 0 and 1")
        if self.mask < 0 or self.random < 0 or self.mask + self.random > 1 + 1e-9:
            raise PalavraError(
                f"masking.mask {self.mask} and masking.random {self.random} must not be negative, nor pass 1 together"
            )
        if self.static and self.final_mask_rate is not None:
            raise PalavraError("masking.static needs a mask rate that stays: set masking.mask_rate alone, with "
                               "masking.final_mask_rate none")  # fmt: skip
        if not 1 <= self.span_words <= LONGEST_SPAN:
            raise PalavraError(f"masking.span_words is {self.span_words}: it must be 1 to {LONGEST_SPAN}")

    def mask_rate_at(self, progress: float) -> float:
        """Return the fraction of tokens to mask when `progress` (0 to 1) of the training is done."""
        if self.final_mask_rate is None:
            return self.mask_rate
        return self.mask_rate + (self.final_mask_rate - self.mask_rate) * min(1.0, max(0.0, progress))


@dataclass(frozen=True, kw_only=True)
class MixtureConfig:
    """How much is causal: `causal_fraction` of the steps, `when` "first" or spread "throughout" the run, or of the
    sequences of every batch ("together").

    Gisserot-Boukhlef et al. (2025, arXiv:2507.00994) found that causal steps followed by masked ones give better
    encoders than masked steps alone at equal cost. Both together, in one model usable as either, are the hybrid of
    Charpentier and Samuel (2024, arXiv:2410.24159). `mntp` is their masked next-token prediction: a masked token is
    predicted from the vector of the token before it, so that both objectives use vectors and head alike.
    """

    causal_fraction: float = option(
        0.6, help="Fraction of the steps, or of the sequences of a batch, that predict the next token."
    )
    when: Literal["first", "throughout", "together"] = option(
        "first", help="Which: the first steps; steps spread evenly over the run; or sequences of every batch."
    )
    mntp: bool = option(
        False,
        help="Predict a masked token from the vector of the token before it, as the next one is (masked next-token "
        "prediction).",
    )

    def __post_init__(self) -> None:
        if not 0 <= self.causal_fraction <= 1:
            raise PalavraError(f"mixture.causal_fraction is {self.causal_fraction}: it must be 0 to 1")

    def causal_fraction_at(self, progress: float, steps: int) -> float:
        """Return the fraction of causal sequences in the step at which `progress` (0 to 1) of a run of `steps` is done.

        It depends on nothing else, so resumed runs, micro-batches and ranks agree. Of the first n steps, n times the
        fraction are causal, rounded down ("throughout") or up ("first").
        """
        if self.when == "together":
            return self.causal_fraction
        if self.when == "first":
            return float(progress < self.causal_fraction)
        step = round(progress * steps)
        return float(math.floor((step + 1) * self.causal_fraction) - math.floor(step * self.causal_fraction))

    def masked_progress(self, progress: float) -> float:
        """Return how much of the masked part of a run is done (0 to 1) at `progress` of the whole run."""
        if self.when != "first" or self.causal_fraction == 1:
            return progress
        return max(0.0, (progress - self.causal_fraction) / (1 - self.causal_fraction))

    def kinds_of_steps(self, steps: int) -> list[tuple[float, float]]:
        """Return the progress at a typical step of each kind, and the fraction of such steps."""
        fraction = self.causal_fraction
        if self.when == "together" or fraction in (0, 1):
            return [(0.5, 1.0)]
        if self.when == "first":
            return [(fraction / 2, fraction), ((1 + fraction) / 2, 1 - fraction)]
        causal = [math.floor((step + 1) * fraction) > math.floor(step * fraction) for step in range(steps)]
        kinds = [([step for step in range(steps) if causal[step] is kind], part) for kind, part in
                 ((True, fraction), (False, 1 - fraction))]  # fmt: skip
        # The middle step of each kind, where linearly changing values are at their mean.
        return [(made[len(made) // 2] / steps, part) for made, part in kinds if made]
