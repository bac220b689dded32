"""The command line: a frozen surface, one-line errors, results on stdout.

`PYTHONPATH=tests python tests/cli/test_cli.py` writes the golden help anew, after a change that was meant.
"""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version as installed_version
from pathlib import Path

import pytest
from builders.commands import Ask

LONG = "x" * 300
GOLDEN = Path(__file__).parents[1] / "golden" / "help.txt"
COMMANDS = ("", "tokenizer", "tokenizer train", "prepare", "pretrain", "finetune", "sweep", "evaluate", "fill",
            "generate", "score", "compare-pairs", "embed", "predict", "report", "options", "demo")  # fmt: skip


def palavra(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the command as a person would."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "palavra", *arguments], capture_output=True, text=True, env=environment
    )


def helps() -> Iterator[str]:
    """The help of every command."""
    for command in COMMANDS:
        shown = palavra(*command.split(), "--help")
        assert shown.returncode == 0, shown.stderr
        yield f"$ palavra {command} --help\n{shown.stdout.rstrip()}\n"


def test_the_help_is_the_golden_one() -> None:
    assert "\n".join(helps()) == GOLDEN.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, made by the command itself."""
    folder = tmp_path_factory.mktemp("cli")
    text = folder / "text.jsonl"
    rows = [json.dumps({"frase": f"O gato número {i} dorme na casa azul."}, ensure_ascii=False) for i in range(60)]
    text.write_text("\n".join(rows) + "\n", encoding="utf-8")
    sets = (
        "model.hidden_size=32",
        "model.num_layers=1",
        "model.num_heads=2",
        "model.context=32",
        "train.batch_tokens=128",
    )
    done = palavra(
        "pretrain", str(text), "--column", "frase", "--out", str(folder / "m"), "--steps", "3", "--vocab-size", "300",
        "--json", "--quiet", *(part for value in sets for part in ("--set", value)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout)["steps"] == 3
    return folder / "m"


def test_fill_prints_token_and_probability_best_first(model: Path, ask: Ask) -> None:
    line = json.loads(ask("fill", model, "O gato [MASK] na [MASK].", "--json", "--top", "3")[1])
    assert [len(fills) for fills in line["fills"]] == [3, 3]
    assert set(line["fills"][0][0]) == {"token", "probability"}
    probabilities = [fill["probability"] for fill in line["fills"][0]]
    assert probabilities == sorted(probabilities, reverse=True)


def test_texts_come_from_standard_input(model: Path, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    given = io.BytesIO("\ufeffO [MASK].\r\nA [MASK] azul.\n".encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(given, encoding="utf-8"))
    lines = ask("fill", model, "--file", "-", "--json")[1].splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["O [MASK].", "A [MASK] azul."]


@pytest.mark.parametrize("suffix", [".npy", ".parquet", ".jsonl"])
def test_embeddings_are_written_in_three_formats(model: Path, tmp_path: Path, ask: Ask, suffix: str) -> None:
    import numpy as np
    import pyarrow.parquet as pq

    path = tmp_path / f"vectors{suffix}"
    assert ask("embed", model, "um gato", "a casa", "--out", path)[0] == 0
    printed = [json.loads(line)["vector"] for line in ask("embed", model, "um gato", "a casa")[1].splitlines()]
    if suffix == ".npy":
        written = np.load(path, allow_pickle=False)
    elif suffix == ".parquet":
        written = np.stack(pq.read_table(path)["vector"].to_numpy())
    else:
        written = np.array([json.loads(line)["vector"] for line in path.read_text(encoding="utf-8").splitlines()])
    np.testing.assert_allclose(written, printed, rtol=1e-6)


def test_evaluate_and_report_work_on_a_finished_run(model: Path, ask: Ask) -> None:
    found = json.loads(ask("evaluate", model, "--json", "--quiet")[1])
    assert {"loss", "perplexity", "accuracy", "accuracy_at_5", "bands", "corruption"} <= set(found)
    assert ask("report", model)[1].strip().endswith("report.html")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fill", "nowhere", "a [MASK]"], "nowhere is not a folder"),
        (["fill", "{model}", "no blank here"], "write [MASK] where a word is missing"),
        (["fill", "{model}", "[MASK] " * 40], "the model reads at most 32"),
        (["fill", "{model}"], "--file"),
        (["fill", "{model}", "--file", "{latin}"], "latin.txt:2 is not UTF-8"),
        (["fill", "{model}", "--file", "{text}"], "text.jsonl:1: nothing to fill in"),
        (["fill", "{model}", "--file", "{tmp}/none.txt"], "none.txt: cannot be opened"),
        (["embed", "{model}", "--file", "{latin}"], "latin.txt:2 is not UTF-8"),
        (["fill", "{model}", "a [MASK]", "--top", "0"], "top is 0"),
        (["embed", "{model}", "a", "--out", "x.pickle"], ".npy, .parquet, .jsonl"),
        (["pretrain", "--out", "{tmp}/m"], "no text was given"),
        (["pretrain", "{tmp}/none.txt", "--out", "{tmp}/m"], "none.txt"),
        (["pretrain", "{tmp}/none.txt"], "--out is missing"),
        (["pretrain", "{text}", "--out", "{tmp}/m", "--column", "texto"], "text.jsonl:1"),
        (["pretrain", "{text}", "--out", "{tmp}/m", "--set", "train.step=3"], "train.steps"),
        (["pretrain", "{text}", "--out", "{tmp}/m", "--set", "train.steps=many"], "train.steps"),
        (["pretrain", "{text}", "--out", "{tmp}/m", "--steps", "3", "--minutes", "1"], "one of"),
        (["pretrain", "{text}", "--out", "{model}"], "already holds a run"),
        (["pretrain", "--resume", "--out", "{tmp}/m"], "no run to resume"),
        (["pretrain", "{latin}", "--out", "{tmp}/m"], "latin.txt:2"),
        (["evaluate", "{tmp}"], "config.json"),
        (["embed", "{begun}", "a"], "begun holds a run that is not finished: resume it (--resume) first"),
        (["report", "{tmp}"], "{tmp}"),
        *((arguments, "File name too long") for arguments in (
            ["embed", LONG, "a"], ["evaluate", "{model}", LONG], ["tokenizer", "train", LONG, "--out", "{tmp}/t"],
            ["report", LONG], ["pretrain", "--resume", "--out", LONG],
        )),
    ],
)  # fmt: skip
def test_wrong_input_gives_one_line_and_code_2(
    model: Path, tmp_path: Path, ask: Ask, arguments: list[str], said: str
) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes("uma linha\né à noite\n".encode("latin-1"))
    begun = tmp_path / "begun"
    (begun / "checkpoints").mkdir(parents=True)
    places = {"model": model, "tmp": tmp_path, "begun": begun, "text": model.parent / "text.jsonl", "latin": latin}
    code, out, err = ask(*(argument.format(**places) for argument in arguments))
    assert (code, out) == (2, "")
    last = err.strip().splitlines()[-1]
    assert last.startswith("palavra: ")
    assert said.format(**places) in last
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "palavra: no such command 'nothing' (python -m palavra --help shows the options)"),
        (["--nothing"], "palavra: no such option: --nothing (python -m palavra --help"),
        (["fill", "m", "--tip", "3"], "(python -m palavra fill --help shows the options)"),
        (["fill"], "palavra: missing argument 'model' (python -m palavra fill --help shows the options)"),
        (["fill", "m", "--top", "many"], "palavra: invalid value for '--top': "),
        (["tokenizer", "train", "a.txt"], "palavra: missing option '--out' (python -m palavra tokenizer train --help"),
        (["embed", "m", "a", "--pooling", "sum"], "'mean', 'cls', 'max', 'lasttoken', "),
        (["report"], "palavra: missing argument 'run'"),
        (["finetune", "qaa", "t.csv"], "palavra: invalid value for 'kind': 'qaa' is not one of "),
        (["pretrain", "--steps"], "palavra: "),
    ],
)
def test_a_command_line_without_meaning_gives_one_line_and_code_2(arguments: list[str], said: str) -> None:
    done = palavra(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("palavra: ")
    assert line.endswith("--help shows the options)")
    assert said in line


@pytest.mark.parametrize("command", ["", "tokenizer"])
def test_a_command_alone_shows_its_help(command: str) -> None:
    done = palavra(*command.split())
    assert done.returncode == 2
    assert "Commands:" in done.stdout + done.stderr


def test_the_version_needs_no_command() -> None:
    done = palavra("--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == installed_version("palavra")


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error(model: Path) -> None:
    texts = "um gato\n" * 3000
    with subprocess.Popen(
        [sys.executable, "-m", "palavra", "embed", str(model), "--file", "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdin.write(texts)
        process.stdin.close()
        assert json.loads(process.stdout.readline())["text"] == "um gato"
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


def test_the_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from palavra.cli import app\n"
        "for command in sys.argv[1:]: assert CliRunner().invoke(app, [*command.split(), '--help']).exit_code == 0\n"
        "assert CliRunner().invoke(app, ['options']).exit_code == 0\n"
        "print(*{'torch', 'numpy', 'scipy', 'pyarrow', 'tokenizers', 'sklearn', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *COMMANDS], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    assert "Traceback" in palavra("report", str(tmp_path), "--debug").stderr


if __name__ == "__main__":
    GOLDEN.write_text("\n".join(helps()), encoding="utf-8")
