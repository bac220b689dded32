"""The documentation says what the program does: commands parse, links resolve, examples run, both languages agree."""

import ast
import doctest
import importlib
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from builders.pages import BLOCK, ROOT, labelled_blocks, text_of
from typer.testing import CliRunner

from palavra import config
from palavra.cli import app
from palavra.recipe import SIZES, FinetuneRecipe, Recipe
from palavra.recipe.learning_rates import PRETRAINING

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
TRANSLATED = [("README.md", "README.pt-BR.md"), ("docs/method.md", "docs/method.pt-BR.md")]
COMMAND: Any = typer.main.get_command(app)
# Options of other programs that the pages use.
FOREIGN = {"--data", "--rounds", "--megabytes", "--sizes", "--no-deps", "--strict", "--fix", "--all", "--quick"}


def blocks(page: Path | str, language: str | None = None) -> list[str]:
    """The code blocks of a page, those of one language or all."""
    return [code for kind, code in labelled_blocks(page) if language in (None, kind)]


def prose(page: Path | str) -> str:
    return BLOCK.sub("", text_of(page))


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


# Commands


def commands(found: Any = COMMAND, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its path, groups included."""
    yield path, found
    for name, inner in getattr(found, "commands", {}).items():
        yield from commands(inner, (*path, name))


def lines_of_commands() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for code in blocks(page, ""):
            for line in code.replace("\\\n", " ").splitlines():
                if line.startswith("palavra "):
                    yield named(page), line


@pytest.mark.parametrize(("page", "line"), list(lines_of_commands()))
def test_a_documented_command_parses(page: str, line: str) -> None:
    found, arguments = COMMAND, shlex.split(line, comments=True)[1:]
    while hasattr(found, "commands"):
        assert arguments, line
        assert arguments[0] in found.commands, f"{page}: {line}"
        found = found.commands[arguments.pop(0)]
    found.make_context("palavra", arguments)


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_every_command_has_help_and_a_place_in_the_readme(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*path, "--help"])
    assert shown.exit_code == 0
    if path and path != ("tokenizer",):
        everything = text_of("README.md") + text_of("docs/files.md")
        assert re.search(rf"(palavra|make) {' '.join(path)}\b", everything)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_options_named_in_the_text_exist(page: Path) -> None:
    known = {
        option for _, command in commands() for each in command.params for option in (*each.opts, *each.secondary_opts)
    }
    known |= FOREIGN | {"--help"}
    text = prose(page)
    if page.name == "CHANGELOG.md":  # the first cells of its tables are names that were
        text = re.sub(r"^\| .*? \|", "|", text, flags=re.MULTILINE)
    spans = " ".join(re.findall(r"`([^`]+)`", text))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", spans)) <= known


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_overrides_in_the_text_name_recipe_fields(page: Path) -> None:
    settings = re.findall(r"--set ([a-z_]+\.[a-z_]+=[^\s`]+)", text_of(page))
    known = FinetuneRecipe() if page.name == "finetuning.md" else Recipe()
    assert config.override(known, settings) is not None


def test_the_example_recipe_is_one(tmp_path: Path) -> None:
    (example,) = blocks("docs/recipe.md", "toml")
    path = tmp_path / "recipe.toml"
    path.write_text(example, encoding="utf-8")
    assert config.from_toml(Recipe, path).masking.unit == "word"


# Links and places


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_relative_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{named(page)}: {target}"
        assert not anchor or anchor in anchors(place), f"{named(page)}: {target}"


def tracked() -> list[Path]:
    """The files that git keeps, or, outside a checkout, those of the usual folders."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 0 and done.stdout:
        files = [ROOT / name for name in done.stdout.split("\0") if name]
    else:
        files = [path for folder in ("src", "tests", "docs", "benchmarks") for path in (ROOT / folder).rglob("*")]
    return [path for path in files if path.is_file() and "__pycache__" not in path.parts]


def test_no_machine_paths_or_package_hosts_in_tracked_files() -> None:
    # Written so that this line does not match itself.
    wrong = re.compile(
        r"/(?:work|root)/|/home/[a-z]|[A-Z]:\\Users|pypi\.org|pythonhosted\.org|index-ur[l]|\.pytorch\.or[g]/whl"
    )
    found = []
    for path in tracked():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if wrong.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert not found, "\n".join(found)


# Two languages


@pytest.mark.parametrize(("english", "portuguese"), TRANSLATED)
def test_both_languages_have_the_same_shape(english: str, portuguese: str) -> None:
    def shape(page: str) -> list[int]:
        return [len(marks) for marks in re.findall(r"^(#+) ", prose(page), re.MULTILINE)]

    def tables(page: str) -> int:
        return len(re.findall(r"^\|", prose(page), re.MULTILINE))

    assert shape(english) == shape(portuguese)
    assert tables(english) == tables(portuguese)
    assert BLOCK.findall(text_of(english)) == BLOCK.findall(text_of(portuguese))
    ids = re.compile(r"\b[AB]-[A-Za-z0-9.]+\b")
    assert ids.findall(prose(english)) == ids.findall(prose(portuguese))


# Examples


def test_the_examples_of_the_method_print_what_they_say() -> None:
    code = "\n".join(blocks("docs/method.md", "python"))
    examples = doctest.DocTestParser().get_doctest(code, {}, "method.md", "docs/method.md", 0)
    assert len(examples.examples) > 50
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(examples, out=said.append)
    assert not said, "".join(said)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_in_the_text_is_python_and_its_names_exist(page: Path) -> None:
    for code in blocks(page, "python"):
        if code.startswith(">>>"):
            continue
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("palavra"):
                assert all(hasattr(importlib.import_module(node.module), name.name) for name in node.names)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "palavra":
                assert hasattr(importlib.import_module("palavra"), node.attr)


# What the pages list


def resolve(dotted: str) -> Any:
    """A function or class of the package from its dotted name, or from the class it belongs to."""
    from palavra.inference.masked import MaskedModel
    from palavra.model.heads import MaskedLanguageModel
    from palavra.objectives.config import MaskingConfig
    from palavra.objectives.masked import MaskedObjective

    classes = (MaskedModel, MaskedLanguageModel, MaskedObjective, MaskingConfig)
    first, *rest = dotted.split(".")
    found: Any = {each.__name__: each for each in classes}.get(first)
    if found is None:
        *modules, last = first, *rest
        return getattr(importlib.import_module(".".join(["palavra", *modules])), last)
    return getattr(found, rest[0]) if rest else found


def test_the_method_names_functions_and_tests_that_exist() -> None:
    pages = sorted((ROOT / "tests" / "method").glob("test_claims*.py"))
    tests = [name for page in pages for name in re.findall(r"^def (test_\w+)", text_of(page), re.MULTILINE)]
    rows = re.findall(r"^\| ([A-E]-\S+) \| (`.+`) \| (`.+`) \|$", text_of("docs/method.md"), re.MULTILINE)
    listed = []
    for claim, functions, shown in rows:
        assert all(resolve(dotted) is not None for dotted in re.findall(r"`([\w.]+)`", functions))
        names = re.findall(r"`(\w+)`", shown)
        assert all(name.endswith(f"__{re.sub(r'[-.]', '_', claim)}") for name in names)
        listed += names
    assert sorted(listed) == sorted(tests)


def test_the_recipe_page_has_every_size() -> None:
    rows = re.findall(
        r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| ([\d.]+) \|$",
        text_of("docs/recipe.md"),
        re.MULTILINE,
    )
    assert [row[0] for row in rows] == list(SIZES)
    for name, *values in rows:
        size = SIZES[name]
        numbers = (
            size.num_layers,
            size.hidden_size,
            size.num_heads,
            size.context,
            size.batch_tokens,
            PRETRAINING[name],
        )
        assert tuple(map(float, values)) == tuple(map(float, numbers))


def test_the_changes_that_the_design_names_have_their_file() -> None:
    (section,) = re.findall(r"## Where to change what\n(.*?)\n## ", text_of("docs/design.md"), re.DOTALL)
    rows = re.findall(r"^\| .+? \| (.*`.*) \|$", section, re.MULTILINE)
    assert len(rows) == 11  # the heading, and ten changes
    named = [name for row in rows[1:] for name in re.findall(r"`(.+?)`", row)]
    for name in named:
        place = name.partition("NAME")[0]
        assert (ROOT / "src" / "palavra" / place).exists(), name


def test_the_dependencies_page_has_each_dependency_once() -> None:
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    extras = [one for group in project["optional-dependencies"].values() for one in group]
    asked = [re.split(r"[<>=\[]", one)[0] for one in [*project["dependencies"], *extras]]
    rows = re.findall(r"^\|(?: `\w+` \|)? `([\w-]+)` \| [a-zA-Z`]", text_of("docs/dependencies.md"), re.MULTILINE)
    assert sorted(rows) == sorted(name for name in asked if name != "palavra")
