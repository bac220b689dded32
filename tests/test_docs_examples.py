"""The commands and the Python of every page run, from top to bottom, on small files and with short trainings."""

import io
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from builders.commands import Ask
from builders.pages import LENGTH, command_lines, labelled_blocks, shorten, text_of, write_files

import palavra

# The pages with commands or Python, and whether they begin with a pretrained model in the folder `model`. test_docs.py
# runs docs/method.md and checks that the Portuguese pages have the same code.
PAGES = {
    "README.md": False,
    "docs/finetuning.md": True,
    "docs/python.md": True,
    "docs/recipe.md": False,
    "docs/results.md": False,
}
# Commands that need the network, or are not Palavra's.
NOT_RUN = re.compile(r"palavra pretrain hf://|make (demo|test|lint)\b|pip |mv |python -m zipfile |python benchmarks/")

# Lines of output that a page shows as the program prints them, but for the numbers.
SHOWN = (
    "tokenizer: ",
    "text: ",
    "size: ",
    "length: ",
    "step ",
    "held-out text: ",
    "model: ",
    "masked tokens ",
    "loss ",
)


def skeletons(text: str) -> set[str]:
    """The lines of an output without numbers and repeated spaces."""
    return {re.sub(r"[\d.,]*\d", "#", " ".join(line.split())) for line in text.splitlines()}


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the pages read, and a pretrained model."""
    folder = tmp_path_factory.mktemp("pages")
    write_files(folder)
    palavra.pretrain(folder / "texts", out=folder / "model", size="nano", steps=2)
    return folder


@pytest.fixture
def place(page: str, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own, with the files of the page."""
    without = None if PAGES[page] else shutil.ignore_patterns("model")
    shutil.copytree(shelf, tmp_path, dirs_exist_ok=True, ignore=without)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page: str, place: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    description = ""
    blocks = labelled_blocks(page)
    for (language, code), (_, output) in zip(blocks, [*blocks[1:], ("", "")], strict=True):
        if language == "toml":
            description = code
        elif language == "":
            found: set[str] = set()
            for line in command_lines(code):
                if description and (name := re.search(r"\w+\.toml", line)):
                    (place / name[0]).write_text(description, encoding="utf-8")
                    description = ""
                if NOT_RUN.match(line):
                    continue
                command, _, redirected = line.partition(" < ")
                given = io.BytesIO(Path(redirected).read_bytes() if redirected else b"")
                monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(given))
                exit_code, printed, said = ask(*shorten(command))
                if output.startswith("palavra: "):  # the page shows the message of a mistake
                    assert (exit_code, said.partition("there are:")[0]) == (2, output.partition("there are:")[0]), line
                else:
                    assert exit_code == 0, f"{line}: {said}"
                    found |= skeletons(printed + said)
            shown = {each for each in skeletons(output) if each.startswith(SHOWN)}
            assert not found or found >= shown


@pytest.mark.slow
@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(language == "python" for language, _ in labelled_blocks(page))]
)
def test_the_python_of_a_page_runs(page: str) -> None:
    variables: dict[str, object] = {}
    for language, code in labelled_blocks(page):
        if language == "python":
            exec(compile(LENGTH.sub("steps=2", code), page, "exec"), variables)


@pytest.mark.parametrize("page", PAGES)
def test_the_records_of_a_page_are_json(page: str) -> None:
    for language, code in labelled_blocks(page):
        if language == "json":
            assert all(isinstance(json.loads(line), dict) for line in code.splitlines())


def names_in(row: str) -> set[str]:
    """The names in backquotes of the row or paragraph of docs/files.md that begins with `row`."""
    (line,) = [line for line in text_of("docs/files.md").splitlines() if line.startswith(row)]
    return set(re.findall(r"`([a-z_0-9]+)`", line.removeprefix(row)))


def test_the_page_of_files_names_what_a_run_writes(shelf: Path) -> None:
    folder = shelf / "model"
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    for section in ("model", "data", "packing", "training"):
        assert names_in(f"| `{section}` | ") >= run[section].keys(), section
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    for kind in ("train", "valid"):
        (written,) = {frozenset(line) for line in lines if line["kind"] == kind}
        assert names_in(f"| `{kind}` | ") == written - {"kind", "step"}
    page = text_of("docs/files.md")
    places = {path.relative_to(folder).as_posix() for path in folder.iterdir()}
    assert {place for place in places if not re.search(rf"`{re.escape(place)}[`/]", page)} == set()
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    assert all(f"`{name}`" in page for name in (*evaluation, "mask_rate", "mask", "random", "seed", "drawn"))
