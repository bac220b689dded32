"""What fine-tuning saves makes vectors as the model that it began with, in Palavra and in sentence-transformers."""

from pathlib import Path

import numpy as np
import pytest
from builders.finetuning import recipe, run, spec
from builders.sentence_models import theirs

import palavra
from palavra.model.sentence_modules import (
    SentenceModules,
    read_sentence_modules,
    trained_pooling,
    write_sentence_modules,
)
from palavra.model.vector_layers import Normalize
from palavra.recipe import FinetuneRecipe

pytestmark = pytest.mark.usefixtures("without_report")
TEXTS = ["bom filme", "", "um filme mau " * 40]


def tuned(base: FinetuneRecipe, out: Path) -> Path:
    run(base, out)
    np.testing.assert_allclose(palavra.load(out).encode(TEXTS), theirs(out).encode(TEXTS), atol=1e-5)
    return out


def test_a_fine_tuned_model_opens_there_and_keeps_its_modules(pretrained: Path, reviews: Path, tmp_path: Path) -> None:
    plain = tuned(recipe(pretrained, spec(reviews), family="bert", train={"steps": 2}), tmp_path / "plain")
    assert trained_pooling(plain) is None
    made = SentenceModules(pooling=("max",), layers=(Normalize(),), prompts={"query": "bom: "}, default_prompt="query")
    write_sentence_modules(made, plain, palavra.load(plain).model.config)
    kept = tuned(recipe(tmp_path, spec(reviews), family="plain", train={"steps": 2}), tmp_path / "kept")
    found = read_sentence_modules(kept)
    assert found is not None
    assert (found.pooling, found.default_prompt, trained_pooling(kept)) == (("max",), "query", "max")
    np.testing.assert_allclose(np.linalg.norm(palavra.load(kept).encode(TEXTS), axis=1), 1, atol=1e-5)
