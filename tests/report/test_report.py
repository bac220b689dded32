"""The page of a pretraining run: whole, inert, and the same for the same run."""

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib
import pytest
from builders.reports import ATTACK, RECIPE, RUN, Structure, make_run

from palavra.report import formatting, write_report


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "reviews")


@pytest.fixture(scope="module")
def page(run_directory: Path) -> str:
    return write_report(run_directory).read_text(encoding="utf-8")


def test_page_is_well_formed_and_accessible(page: str) -> None:
    structure = Structure(page)
    identities = [attributes["id"] for _, attributes in structure.tags if "id" in attributes]
    assert len(identities) == len(set(identities))
    targets = {str(value)[1:] for _, a in structure.tags for key, value in a.items() if key == "href"}
    targets |= set(re.findall(r"url\(#([^)]+)\)", page))
    targets |= {str(a["aria-labelledby"]) for _, a in structure.tags if "aria-labelledby" in a}
    assert targets <= set(identities)
    assert structure.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in structure.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(a.get("scope") for a in structure.all("th"))
    assert len(structure.all("caption")) == len(structure.all("table"))
    figures = structure.all("svg")
    assert len(figures) == len(structure.all("figcaption")) == 8
    assert all(a["role"] == "img" and len(str(a["aria-label"])) > 40 for a in figures)


def test_page_stands_alone(page: str) -> None:
    structure = Structure(page)
    assert not {tag for tag, _ in structure.tags} & {"script", "link", "img", "iframe", "object", "base", "form"}
    for _, attributes in structure.tags:
        assert not any(key.startswith("on") or key in ("src", "action") for key in attributes)
        assert all(str(value).startswith("#") for key, value in attributes.items() if key == "href")
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in page
    assert len(page.encode()) < 150_000


def test_text_of_a_document_is_inert_but_shown(page: str) -> None:
    assert "<script" not in page
    assert "<b>" not in page
    assert ATTACK in Structure(page).text
    assert "<b>bold</b>" in Structure(page).text


def test_page_says_what_the_run_did(page: str) -> None:
    text = re.sub(r"[ \n]+", " ", Structure(page).text)
    narrow = formatting.SPACE
    for shown in (
        *("3.542", "34.5", "37.6%", "57.2%", f"2.87{narrow}M", f"3{narrow}min 04{narrow}s", "15,557", "819,456"),
        *("4.9 passes over the text", "43% of the machine’s peak", "vocabulary of 4,096", "reviews"),
        *("best", "64.1%", "[MASK] 2", "<0.1%", "ModernBERT, 2 layers of width 128", "micro (chosen)"),
        *("Candidates for 3 minutes", "99.3%", "1,102", "2 empty documents were left out", "compiled in 21 s"),
        *('family = "modernbert"', "AMD EPYC 9R14", "2001-4096", f"2.54{narrow}MB"),
    ):
        assert shown in text, shown
    assert "Parts are missing" not in text
    assert "width: 64.12%" in page


def test_figures_follow_the_page_and_keep_text(page: str) -> None:
    figures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    for figure in figures:
        assert "<text" in figure
        assert "var(--" in figure
        assert not re.search(r"#[0-9a-f]{6}\b", figure), "a colour that is not the page's"
        assert "font-family" not in figure
    assert "prefers-color-scheme: dark" in page


def test_same_run_gives_the_same_bytes_whatever_the_settings(run_directory: Path, page: str) -> None:
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "svg.fonttype": "path"}):
        assert write_report(run_directory).read_text(encoding="utf-8") == page
    assert dict(matplotlib.rcParams) == before
    assert not list(run_directory.glob(".*.partial"))


def test_drawing_leaves_pyplot_alone(run_directory: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from palavra.report import write_report;"
        "write_report(Path(sys.argv[1])); sys.exit(bool({'matplotlib.pyplot', 'torch'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code, str(run_directory)], check=True, timeout=60)


def test_stopped_run_says_why(tmp_path: Path) -> None:
    (tmp_path / "palavra.toml").write_text(RECIPE)
    run = RUN | {"training": RUN["training"] | {"stopped": "loss is NaN at step 40"}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert "Training stopped early: loss is NaN at step 40" in write_report(tmp_path).read_text(encoding="utf-8")


def test_a_causal_run_shows_how_it_goes_on(tmp_path: Path) -> None:
    run = make_run(tmp_path / "reviews")
    (run / "examples.json").write_text(json.dumps([{"prompt": "Era <uma>", "text": " vez & so on", "reason": "end"}]))
    (run / "evaluation.json").write_text(
        json.dumps(
            {
                "tokens": 9,
                "loss": 2.0,
                "perplexity": 7.4,
                "perplexity_per_word": 30.0,
                "bits_per_byte": 1.5,
                "sliding": False,
            }
        )
    )
    page = write_report(run).read_text(encoding="utf-8")
    assert "How it continues a text" in page
    assert "Era &lt;uma&gt;</mark> vez &amp; so on" in page
    assert "Bits per byte" in page
    assert "next tokens of validation text" in page
    assert "What it fills in" not in page


def test_a_switch_of_objectives_is_marked(tmp_path: Path) -> None:
    run = make_run(tmp_path / "reviews")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "train":
            line["causal"] = int(line["step"] <= 700)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "The objective changes at step" in write_report(run).read_text(encoding="utf-8")
