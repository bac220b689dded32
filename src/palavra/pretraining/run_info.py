"""What the report says about a run besides its curves: environment, model, data."""

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version

from palavra.data.shards import Manifest
from palavra.pretraining.job import PretrainingJob
from palavra.pretraining.plan.model_size import SizeCandidate
from palavra.pretraining.plan.scaling_law import parameters_without_embeddings
from palavra.run_records import Budget, BudgetCandidate, CorpusSummary, PretrainedModel, PretrainingRun
from palavra.training.environment import environment


def describe_run(
    job: PretrainingJob, manifest: Manifest, rule: Sequence[str], candidates: Sequence[SizeCandidate]
) -> PretrainingRun:
    """Return the content of `run.json` before training."""
    config, train = job.model.config, job.recipe.train
    return PretrainingRun(
        palavra=version("palavra"),
        environment=environment(job.compute, job.matmul_peak),
        model=PretrainedModel(
            family=config.family,
            objective=job.recipe.objective,
            num_layers=config.num_layers,
            hidden_size=config.hidden_size,
            num_heads=config.num_heads,
            intermediate_size=config.intermediate_size,
            vocab_size=config.vocab_size,
            context=config.context,
            parameters=sum(p.numel() for p in job.model.parameters()),
            parameters_without_embeddings=parameters_without_embeddings(job.model),
        ),
        data=CorpusSummary(**manifest.summary()),
        budget=Budget(
            minutes=train.minutes,
            rule=tuple(rule),
            candidates=tuple(
                BudgetCandidate(**asdict(one), steps=int(one.tokens / (train.batch_tokens or 1))) for one in candidates
            ),
        ),
    )
