"""The design as tests: which way imports point, and what the package never does. It is read, not run."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "palavra"

# A room is a module or a package directly in palavra. It may import rooms on lower floors only; inside a
# package imports are free. A new room gets its floor here.
FLOORS = {
    "cli": 10,
    "demo": 9,
    "sklearn": 9,
    "api": 8,
    "experiments": 7,
    "finetuning": 6,
    "pretraining": 6,
    "inference": 5,
    "recipe": 5,
    "objectives": 4,
    "tasks": 4,
    "training": 4,
    "data": 3,
    "report": 3,
    "metrics": 2,
    "model": 2,
    "tokenizer": 2,
    "batch": 1,
    "losses": 1,
    "config": 1,
    "option": 1,
    "printable": 1,
    "distributed": 1,
    "files": 1,
    "log": 1,
    "errors": 1,
    "limits": 1,
    "output": 1,
    "run_records": 1,
    "typed_json": 1,
}
TOP = max(FLOORS.values()) + 1  # palavra itself and __main__, which show what is inside and are imported by no room
GROUND = {"errors", "files", "limits", "option", "printable", "typed_json"}  # what the rooms of floor 1 may stand on

FORBIDDEN = {
    "pickle": "a pickle can run code when it is read",
    "torch.load": "it reads pickles; use safetensors",
    "eval": "nothing is evaluated",
    "exec": "nothing is evaluated",
    "os.environ": "settings are configuration, not environment",
    "os.getenv": "settings are configuration, not environment",
    "transformers": "it is the reference of the tests, not a part",
}


# What reaches a terminal passes these modules, which escape it.
EXITS = {"cli/streams.py", "cli/printing.py", "log.py"}
PAST_THEM = dict.fromkeys(
    ("print", "typer.echo", "typer.secho", "sys.stdout", "sys.stderr", "rich", "logging", "warnings.warn"),
    "print through cli/printing.py, or through the log",
)


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def modules(package: Path) -> Iterator[tuple[str, Path]]:
    """The dotted name inside `package` and the path of every module; a package is named by its folder."""
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


def imported(path: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Line and absolute dotted name of everything that a module imports, wherever in its text and however."""
    inside = (package.name, *path.relative_to(package).parts[:-1])
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = inside[: len(inside) + 1 - node.level] if node.level else ()
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] in (
            "import_module",
            "__import__",
        ):
            names = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
            yield from ((node.lineno, str(name)) for name in names)


def dotted(node: ast.AST) -> str:
    """A name or attribute as written (`torch.load`); empty for anything else, such as `f().load`."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (value := dotted(node.value)):
        return f"{value}.{node.attr}"
    return ""


def rooms(package: Path) -> set[str]:
    """The packages and modules directly in `package`."""
    return {name.split(".")[0] for name, _ in modules(package)} - {"", "__main__"}


def room_of(name: str, package: Path) -> str:
    """The room of a dotted name inside the package; empty for what palavra itself defines."""
    room = name.split(".")[0]
    return room if (package / room).is_dir() or (package / f"{room}.py").exists() else ""


def violations(package: Path) -> list[str]:
    """Every import that does not point downward, and every room without a floor."""
    found = set()
    for name, path in modules(package):
        room = name.split(".")[0]
        above = room in ("", "__main__")
        if not above and room not in FLOORS:
            found.add(f"{path}: the room '{room}' has no floor in {Path(__file__).name}")
            continue
        floor = TOP if above else FLOORS[room]
        for line, target in imported(path, package):
            outermost, _, rest = target.partition(".")
            if outermost != package.name:
                continue
            other = room_of(rest, package)
            other_floor = FLOORS.get(other, TOP)
            inside = other == room and not above
            ground = other_floor == floor == 1 and other in GROUND
            if not (other_floor < floor or inside or ground):
                here, there = (f"{r or package.name} (floor {f})" for r, f in ((room, floor), (other, other_floor)))
                found.add(f"{path}:{line}: {here} imports {there}: imports point downward only")
    return sorted(found)


def forbidden(package: Path) -> list[str]:
    """Every use of what the package does without."""
    found = set()
    for _, path in modules(package):
        unwanted = FORBIDDEN if path.relative_to(package).as_posix() in EXITS else FORBIDDEN | PAST_THEM
        names = list(imported(path, package))
        names += [(n.lineno, dotted(n)) for n in ast.walk(parse(path)) if isinstance(n, ast.Name | ast.Attribute)]
        for line, name in names:
            for what, reason in unwanted.items():
                if f"{name}.".startswith(f"{what}."):
                    found.add(f"{path}:{line}: {what}: {reason}")
    return sorted(found)


def test_imports_point_downward() -> None:
    found = violations(PACKAGE)
    assert not found, "\n" + "\n".join(found)


def test_every_room_has_a_floor_and_every_floor_holds_rooms_that_exist() -> None:
    assert set(FLOORS) == rooms(PACKAGE)


def listed(page: str) -> Iterator[tuple[str, int, str]]:
    """Path, floor and description of each room, and of each package inside one, in a page's listing of the floors."""
    text = (ROOT / page).read_text(encoding="utf-8").partition("loors\n")[2]
    listing = text.split("```\n")[1]
    floor, room, found = 0, "", list[tuple[str, int, str]]()
    for line in listing.splitlines():
        parts = re.match(r"(\d*)( +)((?:\w+(?:/|\.py)(?: |$))+)(.*)", line)
        if parts is None or len(parts[1] + parts[2]) > 5:  # a description goes on
            path, floor, text = found.pop()
            found.append((path, floor, f"{text} {line.strip()}"))
        elif len(parts[1] + parts[2]) == 5:
            found.append((f"{room}{parts[3].strip()}", floor, parts[4].strip()))
        else:
            floor = int(parts[1] or floor)
            found += [(path, floor, parts[4].strip()) for path in parts[3].split()]
            room = found[-1][0]
    yield from found


@pytest.mark.parametrize("page", ["docs/design.md", "CONTRIBUTING.md"])
def test_a_page_lists_each_room_on_its_floor(page: str) -> None:
    found = [(path.rstrip("/").removesuffix(".py"), floor) for path, floor, _ in listed(page)]
    assert sorted((path, floor) for path, floor in found if "/" not in path) == sorted(FLOORS.items())
    for path, _, _ in listed(page):
        assert (PACKAGE / path).is_dir() if path.endswith("/") else (PACKAGE / path).is_file(), path


def test_the_design_names_no_file_of_a_package_or_all_of_them() -> None:
    for path, _, text in listed("docs/design.md"):
        assert all((PACKAGE / path / inner).is_dir() for inner in re.findall(r"\b(\w+)/", text)), path
        if named := set(re.findall(r"\b\w+\.py\b", text)):
            assert named == {file.name for file in (PACKAGE / path).glob("*.py")} - {"__init__.py"}, path


def test_nothing_forbidden_is_used() -> None:
    found = forbidden(PACKAGE)
    assert not found, "\n" + "\n".join(found)


def test_no_two_classes_share_a_name() -> None:
    homes: dict[str, list[str]] = {}
    for name, path in modules(PACKAGE):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(name)
    assert {name: where for name, where in homes.items() if len(where) > 1} == {}


def test_no_module_is_a_drawer_for_anything() -> None:
    assert [
        path for name, path in modules(PACKAGE) if name.split(".")[-1] in ("utils", "util", "helpers", "misc")
    ] == []


def plant(folder: Path, module: str, text: str) -> Path:
    """A small package with a room on several floors, and one module with the text to be found out."""
    package = folder / "palavra"
    for room in ("cli", "api", "report", "training", "model", "data", "batch", "tokenizer", "errors"):
        (package / room).mkdir(parents=True)
        (package / room / "__init__.py").touch()
    (package / "__init__.py").write_text("from palavra.api import pretrain\n")
    (package / "__main__.py").write_text("from palavra.cli import main\n")
    (package / "model" / "layers.py").write_text("from .attention import attend\nfrom palavra.batch import Batch\n")
    (package / "tokenizer" / "__init__.py").write_text("from palavra.errors import PalavraError\n")
    assert violations(package) == forbidden(package) == []
    path = package / f"{module}.py"
    path.write_text(text)
    return package


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("model/planted", "from palavra.training.loop import train"),
        ("model/planted", "import palavra.training"),
        ("model/planted", "import palavra.training.loop as loop"),
        ("model/planted", "from palavra import training"),
        ("model/planted", "from .. import training"),
        ("model/planted", "from ..training import loop"),
        ("model/planted", "from ..training.loop import train"),
        ("model/planted", "def train():\n    from palavra.training.loop import train"),
        ("model/planted", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import palavra.training"),
        ("model/planted", "import importlib\nimportlib.import_module('palavra.training')"),
        ("model/planted", "import palavra"),
        ("model/planted", "from palavra import pretrain"),
        ("model/planted", "from palavra import __main__"),
        ("model/planted", "import palavra.unknown"),
        ("model/planted", "from palavra.data import shards"),
        ("model/__init__", "from ..data import shards"),
        ("batch/planted", "from palavra.tokenizer import Tokenizer"),
        ("report/planted", "from palavra.training import loop"),
        ("attic", "import json"),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, module: str, text: str) -> None:
    package = plant(tmp_path, module, text)
    (found,) = violations(package)
    assert f"{package / module}.py" in found


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from pickle import loads",
        "def read():\n    import transformers",
        "eval('1')",
        "exec('pass')",
        "import torch\ntorch.load('model.pt')",
        "import os\nos.environ.get('HOME')",
        "import os\nos.environ['HOME']",
        "from os import environ",
        "from os import getenv",
        "print('text')",
        "import typer\ntyper.echo('text')",
        "import sys\nsys.stdout.write('text')",
        "import sys\nsys.stderr.write('text')",
        "import logging",
        "from rich.console import Console",
    ],
)
def test_a_planted_use_is_found(tmp_path: Path, text: str) -> None:
    (found,) = forbidden(plant(tmp_path, "model/planted", text))
    assert "planted.py" in found


@pytest.mark.parametrize("text", ["model.eval()", "import torch.nn\ntorch.nn.load", "loads = None"])
def test_what_only_looks_alike_is_not(tmp_path: Path, text: str) -> None:
    assert forbidden(plant(tmp_path, "model/planted", text)) == []


@pytest.mark.skipif(not (PACKAGE / "__main__.py").exists(), reason="there is no command line yet")
def test_help_does_not_import_torch() -> None:
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "palavra", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(PACKAGE.parent)},
    )
    names = {line.rpartition("|")[2].strip() for line in shown.stderr.splitlines()}
    assert "palavra.cli" in names
    assert names.isdisjoint({"torch", "numpy", "pyarrow", "matplotlib", "tokenizers", "datasets"})
