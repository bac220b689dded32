"""The content of `run.json`: environment, model, data, packing."""

from dataclasses import asdict
from importlib.metadata import version

from palavra.data.shards import Manifest
from palavra.pretraining.job import PretrainingJob
from palavra.pretraining.plan.resolve import ResolvedRecipe
from palavra.pretraining.plan.scaling_law import parameters_without_embeddings
from palavra.run_records.pretraining import (
    Budget,
    BudgetCandidate,
    CorpusSummary,
    PackingSummary,
    PretrainedModel,
    PretrainingRun,
)
from palavra.training.environment import environment, shape_of
from palavra.training.trainer import Outcome


def describe_run(job: PretrainingJob, manifest: Manifest, resolved: ResolvedRecipe) -> PretrainingRun:
    """Return the content of `run.json` before training."""
    config, train = job.model.config, job.recipe.train
    return PretrainingRun(
        palavra=version("palavra"),
        environment=environment(job.compute, job.matmul_peak),
        model=PretrainedModel(
            **shape_of(config),
            objective=job.recipe.objective,
            intermediate_size=config.intermediate_size,
            parameters=sum(p.numel() for p in job.model.parameters()),
            parameters_without_embeddings=parameters_without_embeddings(job.model),
        ),
        data=CorpusSummary(**manifest.summary()),
        budget=Budget(
            minutes=train.minutes,
            rule=tuple(resolved.reasons),
            candidates=tuple(
                BudgetCandidate(**asdict(one), steps=int(one.tokens / (train.batch_tokens or 1)))
                for one in resolved.candidates
            ),
        ),
    )


def describe_packing(job: PretrainingJob, outcome: Outcome) -> PackingSummary:
    """Return `packing` of `run.json`, after training."""
    return PackingSummary(
        efficiency=outcome.packing.efficiency,
        pieces=job.packer.epoch_pieces,
        cut_documents=job.packer.cut_documents,
        context=job.packer.context,
        batch_tokens=job.recipe.train.batch_tokens,
    )
