"""What contributors expect to find ready: hooks, workflow, forms, citation, and a package that ships its types."""

import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

import palavra

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CHECKS = ["make lint", "make test"]


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_hooks_and_workflow_run_the_commands_of_ci() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert [line for line in script.splitlines() if line.startswith("make ")] == CHECKS
    (local,) = load(".pre-commit-config.yaml")["repos"]
    assert [hook["entry"] for hook in local["hooks"]] == CHECKS
    jobs = load(".github/workflows/ci.yml")["jobs"]
    steps = {name: [step["run"] for step in job["steps"] if "run" in step] for name, job in jobs.items()}
    assert steps == {"checks": CHECKS, "lowest": ["make test CONSTRAINTS=constraints-lowest.txt"]}


def test_the_workflow_covers_every_python_that_is_promised() -> None:
    jobs = load(".github/workflows/ci.yml")["jobs"]
    promised = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert jobs["checks"]["strategy"]["matrix"]["python"] == promised
    (lowest,) = [step["with"] for step in jobs["lowest"]["steps"] if "with" in step]
    assert PROJECT["requires-python"] == f">={lowest['python-version']}"


def test_the_lowest_versions_are_those_of_the_project() -> None:
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    bounds = {one.partition(",")[0].replace(">=", "==") for group in groups for one in group}
    bounds = bounds - {"torch==2.11"} | {"torch==2.13.0"}  # see the file
    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    listed = [line for line in lines if "==" in line]
    assert sorted(listed) == sorted(bound for bound in bounds if not bound.startswith("palavra["))


@pytest.mark.parametrize("form", ["bug.yml", "feature.yml"])
def test_issue_forms_ask_questions(form: str) -> None:
    loaded = load(f".github/ISSUE_TEMPLATE/{form}")
    assert loaded["name"]
    assert loaded["description"]
    ids = [part["id"] for part in loaded["body"]]
    assert len(set(ids)) == len(ids)
    assert all(part["type"] in ("input", "textarea") and part["attributes"]["label"] for part in loaded["body"])


def test_the_citation_names_this_version_and_license() -> None:
    citation = load("CITATION.cff")
    assert citation["version"] == palavra.__version__
    assert citation["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()


def test_the_package_ships_its_types() -> None:
    assert files("palavra").joinpath("py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["classifiers"]
