"""fill, score and compare-pairs from the command line: their JSON, their tables, and options without effect."""

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from builders.models import CPU, build_causal_model, build_model, model_config
from typer.testing import CliRunner

from palavra.cli import app
from palavra.cli.printing import one_line
from palavra.errors import PalavraError, options_as_flags
from palavra.inference.masked import MaskedModel
from palavra.inference.minimal_pairs import MinimalPair, compare_pairs
from palavra.inference.scoring import Masking
from palavra.model.directory import save_model
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig

WORDS = ["O gato preto correu pela casa.", "A menina leu um livro à noite.", "Não há pão."]
TOKENIZER = Tokenizer.train(WORDS * 5, TokenizerConfig(vocab_size=300))
MODEL = MaskedModel(build_model(model_config(vocab_size=TOKENIZER.vocab_size)), TOKENIZER, CPU)
TEXT = "O gato [MASK] [MASK] pela [MASK]."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("words")
    save_model(MODEL.model, path / "masked")
    config = model_config("llama", vocab_size=TOKENIZER.vocab_size)
    save_model(build_causal_model(config), path / "causal", {"bos_token_id": TOKENIZER.cls_id})
    for name in ("masked", "causal"):
        TOKENIZER.save(path / name)
    pairs = [{"sentence_good": f"{a} {b}", "sentence_bad": f"{b} {a}"} for a, b in pairwise(WORDS)]
    (path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    return path


def palavra(*arguments: object) -> str:
    """What a command writes."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--device", "cpu"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_whole_fillings_as_json(folder: Path) -> None:
    line = json.loads(palavra("fill", folder / "masked", TEXT, "--n-best", 3, "--beam", 5, "--json"))
    assert set(line) == {"text", "fillings"}
    assert len(line["fillings"]) == 3
    for found, expected in zip(line["fillings"], MODEL.fillings(TEXT, 3, beam=5), strict=True):
        assert set(found) == {"text", "probability", "probability_per_token", "log_probability", "blanks"}
        assert found["text"] == expected.text
        assert found["probability"] == pytest.approx(expected.probability, rel=1e-3)
        assert [len(blank["tokens"]) for blank in found["blanks"]] == [2, 1]
        assert set(found["blanks"][0]["tokens"][0]) == {"token", "probability"}


def test_proposals_keep_their_names_in_either_order(folder: Path) -> None:
    (before,) = palavra("fill", folder / "masked", TEXT, "--json").splitlines()
    assert set(json.loads(before)) == {"text", "fills"}
    line = json.loads(palavra("fill", folder / "masked", TEXT, "--order", "iterative", "--top", 2, "--json"))
    assert set(line) == {"text", "fills", "readings"}
    assert sorted(line["readings"]) == [1, 2, 3]
    blanks = MODEL.fill(TEXT, 2, "iterative")
    assert line["fills"] == [
        [{"token": fill.token, "probability": pytest.approx(fill.probability, rel=1e-3)} for fill in blank.fills]
        for blank in blanks
    ]


def test_fillings_as_people_read_them(folder: Path) -> None:
    text, *lines = palavra("fill", folder / "masked", TEXT, "--n-best", 2).strip().split("\n")
    assert text == TEXT
    for line, expected in zip(lines, MODEL.fillings(TEXT, 2), strict=True):
        assert line.endswith(f"  {one_line(' / '.join(blank.text for blank in expected.blanks))}")
    shown = palavra("fill", folder / "masked", TEXT, "--order", "iterative")
    readings = [blank.reading for blank in MODEL.fill(TEXT, order="iterative")]
    assert [line for line in shown.split("\n") if "blank" in line] == [
        f"  blank {i}, filled {number}." for i, number in enumerate(readings, 1)
    ]
    open_ended = (
        palavra("fill", folder / "masked", "O gato [MASK].", "--n-best", 4, "--blank", "1-2").strip().split("\n")
    )
    assert len(open_ended) == 5
    assert all(" a token  " in line for line in open_ended[1:])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--beam", "3"], "give --n-best too"),
        (["--blank", "1-2"], "give --n-best too"),
        (["--n-best", "2", "--top", "3"], "give one of the two"),
        (["--n-best", "2", "--blank", "few"], "--blank is 'few': it must be a number of tokens, or a range as in 1-3"),
        (["--n-best", "2", "--blank", "1-2"], "has 3: fill the others first"),
        (["--n-best", "2", "--order", "parallel", "--beam", "4"], "leave it out"),
        (["--n-best", "301"], "n_best is 301"),
        (["--top", "0"], "top is 0"),
    ],
)
def test_options_without_effect_or_out_of_bounds_are_errors(folder: Path, options: list[str], said: str) -> None:
    with options_as_flags(), pytest.raises(PalavraError, match=re.escape(said)):
        palavra("fill", folder / "masked", TEXT, *options)


def test_an_error_in_a_line_says_in_which(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("um [MASK]\n[MASK] e [MASK]\n", encoding="utf-8")
    with pytest.raises(PalavraError, match=r"a\.txt:2: .*has 2: fill the others first"):
        palavra("fill", folder / "masked", "--file", tmp_path / "a.txt", "--n-best", 2, "--blank", "1-2")


# Scores


@pytest.mark.parametrize("masking", ["token", "word", None])
def test_pairs_are_compared_with_the_masking_asked_for(folder: Path, masking: Any) -> None:
    options = [] if masking is None else ["--masking", masking]
    found = json.loads(palavra("compare-pairs", folder / "masked", folder / "pairs.jsonl", *options, "--json"))
    used: Any = masking or "word"
    pairs = [MinimalPair(f"{a} {b}", f"{b} {a}", "all") for a, b in pairwise(WORDS)]
    expected = compare_pairs(pairs, lambda texts: MODEL.score(texts, masking=used))
    assert (found["masking"], found["pairs"], found["accuracy"]) == (used, 2, expected.accuracy)
    table = palavra("compare-pairs", folder / "masked", folder / "pairs.jsonl", *options)
    assert table.splitlines()[-1].endswith(f"(masking: {used})")


def test_pairs_of_several_files_folders_and_globs(folder: Path, tmp_path: Path) -> None:
    for name in ("a.jsonl", "b/c.jsonl", "b/.hidden.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        pair = {"sentence_good": WORDS[0], "sentence_bad": WORDS[2], "UID": name[0], "field": "syntax"}
        path.write_text(json.dumps(pair), encoding="utf-8")
    for sources in ([tmp_path], [tmp_path / "a.jsonl", tmp_path / "b"], [tmp_path / "a*", tmp_path / "**" / "c.jsonl"]):
        found = json.loads(palavra("compare-pairs", folder / "causal", *sources, "--json"))
        assert [(one["phenomenon"], one["pairs"]) for one in found["phenomena"]] == [("a", 1), ("b", 1)]
        assert [(one["phenomenon"], one["pairs"]) for one in found["fields"]] == [("syntax", 2)]
    (tmp_path / "empty").mkdir()
    with pytest.raises(PalavraError, match="no files of records here"):
        palavra("compare-pairs", folder / "causal", tmp_path / "empty")


def test_the_masking_reaches_the_scores(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    whole = MaskedModel.score

    def noted(self: MaskedModel, texts: Sequence[str], per_token: bool, masking: Masking) -> Any:
        asked.append(masking)
        return whole(self, texts, per_token, masking)

    monkeypatch.setattr(MaskedModel, "score", noted)
    for masking in ("token", "word"):
        palavra("compare-pairs", folder / "masked", folder / "pairs.jsonl", "--masking", masking)
    assert asked == ["token", "word"]


def test_a_causal_model_masks_nothing(folder: Path) -> None:
    assert (
        json.loads(palavra("compare-pairs", folder / "causal", folder / "pairs.jsonl", "--json"))["masking"] == "none"
    )
    for masking in ("word", "none"):
        with pytest.raises(PalavraError, match="does not apply to a causal language model"):
            palavra("compare-pairs", folder / "causal", folder / "pairs.jsonl", "--masking", masking)
    with pytest.raises(PalavraError, match=r"causal\+masked"):
        palavra("compare-pairs", folder / "masked", folder / "pairs.jsonl", "--masking", "none")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "(the context of 64 tokens is full: --max-tokens N --overflow slide continues)\n"),
        (["--max-tokens", "3"], ""),
    ],
)
def test_a_text_that_ends_before_it_was_asked_to_says_why(folder: Path, options: list[str], said: str) -> None:
    arguments = ["generate", str(folder / "causal"), "O gato", "--temperature", "0", *options, "--device", "cpu"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.stdout.startswith("O gato")
    assert done.stderr == said


def test_a_model_that_ends_a_text_early_says_after_how_much(folder: Path) -> None:
    said = re.compile(r"\(the model ended the text after (\d+) of 60 tokens\)\n")
    ended = 0
    for seed in range(30):
        arguments = ["generate", str(folder / "causal"), "--max-tokens", "60", "--seed", str(seed), "--device", "cpu"]
        stderr = CliRunner().invoke(app, arguments, catch_exceptions=False).stderr
        assert not stderr or said.fullmatch(stderr)
        ended += bool(stderr)
    assert ended


def test_a_text_is_one_line_of_the_table_of_scores(folder: Path) -> None:
    texts = ["um\ndois\ttrês\x1b[31m", "longo " * 40, "pão à noite"]
    head, *lines = palavra("score", folder / "causal", *texts).splitlines()
    assert head.endswith("text")
    assert [line[head.index("text") :] for line in lines] == [
        r"um\ndois\ttrês\x1b[31m",
        ("longo " * 40)[:77] + "...",
        "pão à noite",
    ]
    whole = palavra("score", folder / "causal", *texts, "--json").splitlines()
    assert [json.loads(line)["text"] for line in whole] == texts
    shown = palavra("score", folder / "causal", "um\n\ndois", "--per-token").splitlines()
    assert len(shown) == 2 + len(TOKENIZER.encode("um\n\ndois"))


def test_one_line_is_as_long_as_asked_for() -> None:
    assert one_line("a" * 80) == "a" * 80
    assert one_line("a" * 81) == "a" * 77 + "..."
    assert one_line("\n" * 79) == r"\n" * 38 + "\\..."
    assert one_line("") == ""
