"""Scores of one evaluation: numbers by name, their intervals, and tables for the report."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from palavra.metrics.bootstrap import bootstrap_intervals
from palavra.metrics.calibration import expected_calibration_error, reliability
from palavra.metrics.resampled import Statistic, point
from palavra.run_records.finetuning import Interval


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of predictions.

    `values`: scores by name (see `names.METRICS`), without undefined ones such as the correlation of constant
    predictions; `main`: the selection metric; `details`: tables for the report, as JSON; `statistics`: the functions to
    resample for intervals; `groups` (E,): the group of each example, if examples of a group are dependent.
    """

    main: str
    values: Mapping[str, float]
    examples: int
    details: Mapping[str, Any] = field(default_factory=dict)
    statistics: Sequence[Statistic] = ()
    groups: npt.NDArray[np.int64] | None = None

    @classmethod
    def of(
        cls, metrics: Sequence[str], statistics: Sequence[Statistic], examples: int, *, details: Mapping[str, Any],
        calibrated: tuple[npt.ArrayLike, npt.ArrayLike] | None = None, others: Mapping[str, float | None] | None = None,
        groups: npt.NDArray[np.int64] | None = None,
    ) -> "Scores":  # fmt: skip
        """Return the scores named in `metrics`, the selection metric first: those of the `statistics`, with intervals,
        and `others` and the calibration error of the confidences and outcomes `calibrated`, without intervals."""
        points: list[Mapping[str, float | None]] = [point(statistic, examples) for statistic in statistics]
        plain: dict[str, float | None] = dict(others or {})
        if calibrated is not None:
            # It is biased upwards on resamples, so it has no interval.
            plain["calibration_error"] = expected_calibration_error(*calibrated)
            details = {**details, "reliability": [asdict(row) for row in reliability(*calibrated)]}
        found = {name: value for of in (*points, plain) for name, value in of.items() if value is not None}
        return cls(
            main=metrics[0],
            values={name: float(found[name]) for name in metrics if name in found},
            examples=examples,
            details=details,
            statistics=[one for one, of in zip(statistics, points, strict=True) if of],
            groups=groups,
        )

    @cached_property
    def intervals(self) -> Mapping[str, Interval]:
        """Return the bootstrap intervals of the values that have one. Takes seconds for many examples."""
        found = bootstrap_intervals(self.statistics, self.examples, groups=self.groups)
        return {name: found[name] for name in self.values if name in found}
