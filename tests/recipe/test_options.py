"""Options are declared once: what is derived from their fields is as it was generated, and every one has an effect."""

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
from builders.generated import ROOT, TYPES, page, typed_options
from typer.testing import CliRunner

import palavra
from palavra import config
from palavra.api import finetune, pretrain, sweep
from palavra.cli import app
from palavra.config import override
from palavra.errors import PalavraError
from palavra.objectives.config import MaskingConfig
from palavra.option import Command, Declared, choices_of, members, misapplied, value_of
from palavra.recipe import FinetuneRecipe, Recipe
from palavra.recipe.finetuning_options import build_finetune_recipe, override_recipe
from palavra.recipe.options import MADE_BY, fields_of, options_of
from palavra.recipe.pretraining_options import build_recipe
from palavra.tasks.column_options import InputColumns, LabelledColumns
from palavra.tasks.spec import Columns, TaskSpec

COMMANDS: tuple[Command, ...] = ("pretrain", "finetune", "sweep")
FLAGS = [(command, each) for command in ("pretrain", "finetune", "sweep") for each in options_of(command)]
LIMITED = [(recipe, each) for recipe in MADE_BY for each in fields_of(recipe) if each.when and not each.option.sets]
SPECIAL = {"tokenizer.vocab_size": 300, "masking.random": 0.05, "task.name": "other"}


def named(value: object) -> str:
    return value.key if isinstance(value, Declared) else getattr(value, "__name__", str(value))


def another(each: Declared) -> Any:
    """A value that a field takes and that is not its default."""
    if each.key in SPECIAL:
        return SPECIAL[each.key]
    if choices := [choice for choice in choices_of(each.kind) if choice != each.default]:
        return choices[0]
    kinds = members(each.kind)
    if bool in kinds:
        return not each.default
    if int in kinds:
        return 7
    if float in kinds:
        return 3.5 if each.key in ("masking.span_words", "mixing.temperature") else 0.25
    return "x" if str in kinds else (7, 5) if "int" in str(kinds) else ("x", "y")


def context_of(each: Declared) -> dict[str, Any]:
    """The other options that a field needs to apply."""
    flags = {"strategy.name": "strategy", "task.overflow": "overflow"}
    return {flags[key]: values[0] for key, values in each.when.items() if key in flags}


def kind_of(each: Declared) -> Any:
    return each.when.get("task.kind", ("classification",))[0]


def of_tasks(recipe: Any, key: str) -> Any:
    return value_of(recipe.tasks[0], key.removeprefix("task.")) if key.startswith("task.") else value_of(recipe, key)


@pytest.mark.parametrize(("command", "each"), FLAGS, ids=named)
def test_every_option_reaches_the_recipe(command: str, each: Declared) -> None:
    value = another(each)
    options: dict[str, Any] = {**context_of(each), each.argument: value}
    if each.argument == "separator":
        options["multilabel"] = True
    if command == "pretrain":
        found: Any = build_recipe(["text"], **options)
    else:
        found = build_finetune_recipe(kind_of(each), "train.csv", **options)
    table = each.key.rpartition(".")[0]
    if each.option.sets:
        for name, own in each.option.sets[value].items():
            assert of_tasks(found, f"{table}.{name}") == own
        value = None
    assert of_tasks(found, each.key) == value
    assert each.option.sets or value != each.default
    for name in each.option.replaces:
        assert value_of(found, f"{table}.{name}") is None


def arguments(each: Declared) -> Iterator[str]:
    """A flag and its value as they are typed."""
    this, _, opposite = (each.option.flag or "").partition("/")
    value = another(each)
    if isinstance(value, bool):
        yield this if value else opposite
    elif isinstance(value, tuple) and value[0] == "x":
        yield from (part for one in value for part in (this, one))
    else:
        yield from (this, ",".join(map(str, value)) if isinstance(value, tuple) else str(value))


@pytest.mark.parametrize(("command", "each"), FLAGS, ids=named)
def test_every_flag_reaches_the_function(monkeypatch: pytest.MonkeyPatch, command: str, each: Declared) -> None:
    seen: dict[str, Any] = {}

    def stop(*_: object, **options: Any) -> None:
        seen.update(options)
        raise PalavraError("seen")

    monkeypatch.setattr(pretrain, "pretrain", stop)
    monkeypatch.setattr(finetune, "finetune", stop)
    monkeypatch.setattr(sweep, "sweep", stop)
    data = ["text"] if command == "pretrain" else ["classification", "train.csv"]
    CliRunner().invoke(app, [command, *data, "--out", "out", *arguments(each)])
    given = seen[each.argument]
    assert type(given)(another(each)) == given or given == ",".join(map(str, another(each)))


MADE = {maker: recipe() for recipe, makers in MADE_BY.items() for maker in makers}


@pytest.mark.parametrize(("recipe", "each"), LIMITED, ids=named)
def test_a_field_that_does_not_apply_is_refused(recipe: type[Any], each: Declared) -> None:
    key, values = next(iter(each.when.items()))
    chooser = next(one for one in fields_of(recipe) if one.key == key)
    other = next(choice for choice in choices_of(chooser.kind) if choice not in values)
    plain = recipe(tasks=(TaskSpec(kind="classification"),)) if recipe is FinetuneRecipe else recipe()
    value = another(each)
    typed = json.dumps(value) if isinstance(value, bool | tuple) else value
    assignments = [f"{key}={other}", f"{each.key}={typed}"]
    if each.key == "masking.static":
        assignments.append("masking.final_mask_rate=none")  # a rate that stays
    made = override_recipe(plain, assignments) if recipe is FinetuneRecipe else override(plain, assignments)
    if each.key.startswith("task."):
        made, plain = made.tasks[0], replace(plain.tasks[0])
    problems = "\n".join(misapplied(made, plain))
    name = each.key.removeprefix("task.")
    assert f"{name} does not apply to " in problems
    assert f"{other}; it applies to {values[0]}" in problems
    assert problems.endswith(": leave it out")


def test_an_option_that_does_not_apply_is_refused_even_with_its_default() -> None:
    with pytest.raises(PalavraError, match=r"^last_n= does not apply to strategy full; it applies to last-n: "):
        build_finetune_recipe("classification", "train.csv", last_n=2)
    with pytest.raises(PalavraError, match=r"^question= does not apply to classification; "):
        build_finetune_recipe("classification", "train.csv", question="q")
    with pytest.raises(PalavraError, match=r"^mask_rate= does not apply to objective causal; "):
        build_recipe(["text"], objective="causal", mask_rate=0.4)


def test_options_that_replace_each_other_are_refused_together() -> None:
    with pytest.raises(PalavraError, match=r"give one of .*steps.*minutes"):
        build_recipe(["text"], steps=3, minutes=1.0)
    with pytest.raises(PalavraError, match=r"give one of .*epochs.*steps"):
        build_finetune_recipe("classification", "train.csv", steps=3, epochs=1.0)
    assert build_recipe(["text"], mask_rate=0.15).masking.final_mask_rate is None


def test_an_unknown_option_is_a_type_error_as_of_any_function() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'stesp'"):
        build_recipe(["text"], **cast(Any, {"stesp": 3}))


def test_a_key_of_the_other_recipe_names_the_nearest() -> None:
    with pytest.raises(
        PalavraError, match=r"model must be text and has no keys under it; the nearest is 'body\.dropout'"
    ):
        override(FinetuneRecipe(), ["model.dropout=0.1"])


def test_the_types_of_the_options_are_as_generated() -> None:
    assert TYPES.read_text(encoding="utf-8") == typed_options()
    assert set(LabelledColumns.__annotations__) == {each.argument for each in fields_of(FinetuneRecipe)
                                                    if each.key.startswith("task.columns.")}  # fmt: skip
    given = {each.argument for each in options_of("predict")} & set(Columns.__dataclass_fields__)
    assert set(InputColumns.__annotations__) == given


@pytest.mark.parametrize("name", ["recipe.md", "finetuning.md"])
def test_the_tables_of_the_pages_are_as_generated(name: str) -> None:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert page(text) == text


@pytest.mark.parametrize("recipe", MADE_BY, ids=named)
def test_every_field_says_what_it_means(recipe: type[Any]) -> None:
    fields = list(fields_of(recipe))
    assert all(each.option.help.endswith((".", ")")) for each in fields), [each.key for each in fields]
    flags = [each.option.flag for each in fields if each.option.flag]
    assert len(set(flags)) == len(flags)


@pytest.mark.parametrize("command", ["pretrain", "finetune", "sweep"])
def test_options_lists_every_field(command: Any) -> None:
    found = palavra.options(command)
    assert [each.key for each in found] == [each.key for each in fields_of(type(MADE[command]))]
    printed = json.loads(CliRunner().invoke(app, ["options", command, "--json"]).stdout)
    assert [each["key"] for each in printed] == [each.key for each in found]
    shown = CliRunner().invoke(app, ["options", command]).stdout
    assert all(each.key in shown and each.help in shown for each in found)
    with pytest.raises(PalavraError, match="'fill' makes no recipe: use pretrain, finetune, sweep"):
        palavra.options(cast(Any, "fill"))


def test_a_recipe_of_a_file_is_changed_by_options_then_by_set(tmp_path: Any) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(config.to_toml(Recipe()), encoding="utf-8")
    made = build_recipe(["text"], recipe=path, warmup=0.2, weight_decay=0.3, set=["schedule.warmup=0.4"])
    assert (made.schedule.warmup, made.optimizer.weight_decay) == (0.4, 0.3)


@pytest.mark.parametrize("recipe", [Recipe, FinetuneRecipe])
@pytest.mark.parametrize("threads", [1025, 10**5, 2**31, 10**180])
def test_threads_that_would_end_the_process_are_refused(recipe: Any, threads: int) -> None:
    with pytest.raises(PalavraError, match="threads"):
        override(recipe(), [f"train.threads={threads}"])


# Short words


def test_a_short_word_sets_the_values_that_it_names() -> None:
    masking = build_recipe(preset="bert").masking
    assert masking == replace(MaskingConfig(), mask_rate=0.15, final_mask_rate=None, mask=0.8, random=0.1, unit="token")
    assert build_recipe(set=["masking.preset=bert"]).masking == masking
    (task,) = build_finetune_recipe("classification", "x.csv", head="linear-cls").tasks
    assert (task.head.pooling, task.head.hidden_sizes) == ("cls", ())
    assert "preset" not in config.to_toml(build_recipe(preset="bert"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: build_recipe(preset="bert", mask_rate=0.3), r"preset= \(bert\) sets masking.mask_rate too: give one"),
        (lambda: build_recipe(**cast(Any, {"preset": "gpt"})), "preset= must be one of bert"),
        (lambda: build_recipe(preset="bert", objective="causal"), "preset= does not apply to objective causal"),
        (
            lambda: build_finetune_recipe("classification", "x.csv", head="linear-cls", hidden_sizes=[3]),
            r"head= \(linear-cls\) sets head.hidden_sizes too: give one",
        ),
        (lambda: build_finetune_recipe("token-classification", "x.conll", head="linear-cls"), "head= does not apply"),
    ],
)
def test_a_short_word_beside_what_it_sets_is_refused(make: Any, said: str) -> None:
    with pytest.raises(PalavraError, match=said):
        make()
