"""The public names of Python: their signatures are those of the golden file, and each command has its function.

`PYTHONPATH=tests:src python tests/api/test_public.py` writes the golden file anew, after a change that was meant.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_overloads

import pytest

import palavra
from palavra.api import learning_curve, results
from palavra.cli import FUNCTIONS, app
from palavra.cli.app import tokenizer_app
from palavra.inference import (
    causal,
    embedding,
    filling,
    finetuned,
    generation,
    infilling,
    loading,
    masked,
    mixed,
    predictions,
    scoring,
)
from palavra.inference.results import Results
from palavra.recipe import typed_options
from palavra.run_records import pretraining
from palavra.sklearn import TextClassifier, TextRegressor

GOLDEN = Path(__file__).parents[1] / "golden" / "public.txt"
CLASSES = (
    masked.MaskedModel, causal.CausalModel, causal.GeneratesText, mixed.MixedModel, finetuned.FineTunedModel,
    loading.ComputeOptions, generation.GenerationOptions,
    typed_options.TokenizerOptions, typed_options.PrepareOptions, typed_options.PretrainOptions,
    typed_options.FinetuneOptions,
    results.TrainedRun, results.PretrainedRun, results.FineTunedRun, results.FineTunedRuns, results.SweepRun,
    learning_curve.LearningCurveRun, Results,
    filling.Blank, pretraining.Fill, infilling.Filling, embedding.Embedding, scoring.Score, generation.Continuation,
    predictions.ClassPrediction, predictions.LabelSetPrediction, predictions.ValuePrediction,
    predictions.TokenPrediction, predictions.AnswerPrediction, predictions.ChoicePrediction,
    TextClassifier, TextRegressor,
)  # fmt: skip


def public() -> str:
    """All public functions and classes with their signatures, as the source writes them."""
    lines: list[str] = []
    for name in palavra.__all__:
        value = getattr(palavra, name)
        if inspect.isfunction(value):
            lines += ["", *_function(f"palavra.{name}", value)]
        else:
            lines += ["", f"class palavra.{name}"]
    for each in CLASSES:
        lines += ["", *_class(each)]
    return "\n".join(lines).lstrip() + "\n"


def _function(name: str, value: Any) -> Iterator[str]:
    for each in get_overloads(value) or [value]:
        node = _parsed(each)
        assert isinstance(node, ast.FunctionDef)
        yield f"def {name}"
        yield from (f"    {parameter}" for parameter in _parameters(node.args))
        yield f"    -> {ast.unparse(node.returns) if node.returns else 'None'}"


def _parsed(value: Any) -> ast.stmt:
    return ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]


def _parameters(arguments: ast.arguments) -> Iterator[str]:
    """One parameter a line."""
    ordered = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(ordered) - len(arguments.defaults)) + list(arguments.defaults)
    for one, default in zip(ordered, defaults, strict=True):
        if one.arg != "self":
            yield _parameter(one, default)
    if arguments.vararg:
        yield f"*{_parameter(arguments.vararg, None)}"
    elif arguments.kwonlyargs:
        yield "*"
    for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield _parameter(one, default)
    if arguments.kwarg:
        yield f"**{_parameter(arguments.kwarg, None)}"


def _parameter(one: ast.arg, default: ast.expr | None) -> str:
    annotation = f": {ast.unparse(one.annotation)}" if one.annotation else ""
    return f"{one.arg}{annotation}" + (f" = {ast.unparse(default)}" if default is not None else "")


def _class(value: type[Any]) -> Iterator[str]:
    node = _parsed(value)
    assert isinstance(node, ast.ClassDef)
    bases = ", ".join(map(ast.unparse, node.bases))
    yield f"class {value.__module__}.{value.__name__}({bases})"
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and not ast.unparse(part.target).startswith("_"):
            yield f"    {ast.unparse(part)}"
        elif isinstance(part, ast.FunctionDef) and (part.name == "__init__" or not part.name.startswith("_")):
            decorators = [ast.unparse(one) for one in part.decorator_list]
            returned = ast.unparse(part.returns) if part.returns else "None"
            kept = "".join(f"@{one} " for one in decorators)
            yield f"    {kept}def {part.name}({', '.join(_parameters(part.args))}) -> {returned}"


def test_public_names_and_signatures_are_the_golden_ones() -> None:
    assert public() == GOLDEN.read_text(encoding="utf-8"), "if the change is meant, run this file to write it anew"


def test_notebooks_complete_the_public_names() -> None:
    assert set(palavra.__all__) <= set(dir(palavra))


def test_other_names_are_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        palavra.nothing  # noqa: B018


def test_no_public_signature_takes_anything() -> None:
    for line in public().splitlines():
        assert not re.search(r"\bAny\b", line.partition("->")[0]), line


def commands() -> set[str]:
    """The commands of the command line."""
    found = set()
    for prefix, group in (("", app), ("tokenizer ", tokenizer_app)):
        for one in group.registered_commands:
            called = one.callback.__name__ if one.callback else ""
            found.add(prefix + (one.name or called.replace("_", "-")))
    return found


def test_each_command_has_a_function_and_each_function_its_command() -> None:
    assert set(FUNCTIONS) == commands()
    for path in FUNCTIONS.values():
        module, _, name = path.rpartition(".")
        while True:
            try:
                value = import_module(module)
                break
            except ModuleNotFoundError:
                module, _, before = module.rpartition(".")
                name = f"{before}.{name}"
        for part in name.split("."):
            value = getattr(value, part)
        assert inspect.isfunction(value), path
    acting = {f"palavra.{name}" for name in palavra.__all__ if inspect.isfunction(getattr(palavra, name))}
    # What builds recipes, says what would be done, or loads does not act by itself.
    assert acting - set(FUNCTIONS.values()) == {
        "palavra.build_finetune_recipe", "palavra.build_recipe", "palavra.load", "palavra.plan",
        "palavra.plan_finetune",
    }  # fmt: skip


if __name__ == "__main__":
    GOLDEN.write_text(public(), encoding="utf-8")
