"""The report: numbers for people, pictures, and a page that is whole, inert and the same for the same run."""

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palavra.errors import PalavraError
from palavra.report import charts, formatting, write_report
from palavra.report.charts import Band, Series
from palavra.report.records import read_records

ATTACK = "</p><script>alert('palavra')</script><img src=https://example.org/x.png onerror=alert(1)>"
RECIPE = """[data]
sources = ["reviews/*.csv.bz2"]
column = "text"
valid_share = 0.05

[model]
family = "modernbert"
layers = 2
width = 128

[train]
steps = 1400
batch_tokens = 2048
learning_rate = 3e-3
"""
RUN: dict[str, Any] = {
    "palavra": "0.1.0",
    "environment": {
        "python": "3.11.9",
        "torch": "2.13.0",
        "platform": "Linux-6.8-x86_64",
        "processor": "AMD EPYC 9R14",
        "cores": 2,
        "threads": 2,
        "device": "cpu",
        "precision": "bfloat16",
        "attention": "batched",
        "compile": True,
    },
    "model": {
        "family": "modernbert",
        "layers": 2,
        "width": 128,
        "heads": 2,
        "intermediate": 192,
        "vocab_size": 4096,
        "context": 64,
        "parameters": 819_456,
        "parameters_without_embeddings": 295_168,
    },
    "data": {
        "sources": ["rotten_tomatoes_corpus_full.csv.bz2"],
        "documents": 13_906,
        "tokens": 612_455,
        "bytes": 2_540_117,
        "duplicates": 37,
        "empty": 2,
        "train_documents": 13_189,
        "train_tokens": 581_202,
        "valid_documents": 680,
        "valid_tokens": 31_253,
        "warnings": ["2 empty documents were left out (first: reviews.csv:318)"],
        "longest_document": 1_204,
        "mean_tokens": 44.04,
    },
    "packing": {
        "efficiency": 0.9934,
        "pieces": 15_022,
        "cut_documents": 1_102,
        "context": 64,
        "batch_tokens": 2048,
    },
    "budget": {
        "minutes": 3.0,
        "rule": [
            "This machine multiplies bfloat16 matrices at 1.21 TFLOP/s (median of 5).",
            "Each size was run for 12 steps; its tokens per second give the steps that fit into 3 minutes.",
            "The size with the least predicted loss was chosen.",
        ],
        "candidates": [
            {"size": "nano", "tokens_per_second": 41_210, "steps": 3622, "predicted_loss": 3.91, "chosen": False},
            {"size": "micro", "tokens_per_second": 15_940, "steps": 1400, "predicted_loss": 3.55, "chosen": True},
            {"size": "mini", "tokens_per_second": 4_812, "steps": 423, "predicted_loss": 4.4, "chosen": False},
            {"size": "small", "tokens_per_second": 901, "steps": 79, "predicted_loss": None, "chosen": False},
        ],
    },
    "training": {
        "steps": 1400,
        "tokens": 2_867_200,
        "seconds": 184.3,
        "tokens_per_second": 15_557.0,
        "best_step": 1400,
        "final_loss": 3.512,
        "stopped": None,
    },
}
EVALUATION: dict[str, Any] = {
    "corruption": {"share": 0.15, "seed": 0},
    "tokens": 4_688,
    "loss": 3.5421,
    "perplexity": 34.54,
    "accuracy": 0.3764,
    "accuracy_at_5": 0.5721,
    "bands": [
        {"band": "1-100", "tokens": 2301, "accuracy": 0.598, "accuracy_at_5": 0.861, "loss": 1.702},
        {"band": "101-500", "tokens": 934, "accuracy": 0.243, "accuracy_at_5": 0.452, "loss": 4.31},
        {"band": "501-1000", "tokens": 502, "accuracy": 0.141, "accuracy_at_5": 0.278, "loss": 5.62},
        {"band": "1001-2000", "tokens": 488, "accuracy": 0.09, "accuracy_at_5": 0.171, "loss": 6.33},
        {"band": "2001-4096", "tokens": 463, "accuracy": 0.041, "accuracy_at_5": 0.093, "loss": 7.48},
    ],
}
EXAMPLES: list[dict[str, Any]] = [
    {
        "text": "one of the [MASK] movies of the year",
        "fills": [
            [
                {"token": "best", "probability": 0.6412},
                {"token": "most", "probability": 0.0871},
                {"token": "worst", "probability": 0.0618},
                {"token": "funniest", "probability": 0.0204},
                {"token": "great", "probability": 0.0112},
            ]
        ],
    },
    {
        "text": "the [MASK] is well acted but the [MASK] is far too long .",
        "fills": [
            [{"token": "film", "probability": 0.352}, {"token": "movie", "probability": 0.298}],
            [{"token": "film", "probability": 0.201}, {"token": "plot", "probability": 0.083}],
        ],
    },
    {
        "text": f"a {ATTACK} [MASK] .",
        "fills": [[{"token": "<b>bold</b>", "probability": 0.051}, {"token": "\n", "probability": 1e-6}]],
    },
]


def metric_lines(steps: int, every: int) -> list[dict[str, Any]]:
    """A plausible run: warm-up, decay, a loss that falls with noise, and validation at tenths of the way."""
    noise = np.random.default_rng(5)
    lines: list[dict[str, Any]] = []
    for step in range(every, steps + 1, every):
        done = step / steps
        loss = 3.4 + 4.9 * math.exp(-9 * done) + 0.5 * (1 - done) + noise.normal(0, 0.09)
        speed = 15_800 * (1 + noise.normal(0, 0.02)) * (0.7 if noise.random() < 0.03 else 1)
        train = {"kind": "train", "step": step, "loss": loss}
        train |= {"learning_rate": 3e-3 * min(step / (0.08 * steps), (1 - done) / 0.92)}
        train |= {"gradient_norm": 0.4 + 2 * math.exp(-20 * done) * noise.lognormal(0, 0.3)}
        train |= {"tokens": step * 2048, "tokens_per_second": speed, "peak_share": speed / 36_000}
        train |= {"masked_share": 0.3 - 0.15 * done, "packing_efficiency": 0.994 + noise.normal(0, 0.003)}
        lines.append(train | {"seconds": step * 2048 / 15_800})
        if step * 10 // steps != (step - every) * 10 // steps:
            valid = {"kind": "valid", "step": step, "loss": loss + 0.05, "perplexity": math.exp(loss + 0.05)}
            valid |= {"accuracy": 0.377 * done**0.4, "accuracy_at_5": 0.573 * done**0.35, "tokens": 4688}
            lines.append(valid | {"seconds": step * 2048 / 15_800})
    return lines


def make_run(directory: Path, *, steps: int = 1400, every: int = 10) -> Path:
    """A finished run's records, without weights."""
    directory.mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, Any]] = [{"kind": "event", "step": 0, "message": "compiled in 21 s"}]
    lines += metric_lines(steps, every)
    (directory / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "palavra.toml").write_text(RECIPE)
    for name, value in (("run", RUN), ("evaluation", EVALUATION), ("examples", EXAMPLES)):
        (directory / f"{name}.json").write_text(json.dumps(value))
    return directory


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "reviews")


@pytest.fixture(scope="module")
def page(run_directory: Path) -> str:
    return write_report(run_directory).read_text(encoding="utf-8")


class Structure(HTMLParser):
    """What a page is made of; fails on a tag that is closed out of order."""

    VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> is out of order"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


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


def test_run_cut_short_says_what_is_not_there(tmp_path: Path) -> None:
    lines = metric_lines(1400, 10)[:3]
    text = "\n".join(json.dumps(line) for line in lines) + '\n{"kind":"train","step":40,"lo'
    (tmp_path / "metrics.jsonl").write_text(text)
    (tmp_path / "run.json").write_text('{"palavra": "0.1')
    page = write_report(tmp_path).read_text(encoding="utf-8")
    shown = " ".join(Structure(page).text.split())
    for sentence in (
        "palavra.toml is not there; run.json is not complete JSON; evaluation.json is not there; examples.json is",
        "There are no filled sentences",
        "There is no final evaluation",
        "There is no summary of the data",
        "30 steps",
    ):
        assert sentence in shown
    assert "unreadable" not in shown


def test_run_that_has_not_begun(tmp_path: Path) -> None:
    (tmp_path / "palavra.toml").write_text(RECIPE)
    text = Structure(write_report(tmp_path).read_text(encoding="utf-8")).text
    assert "holds no training or validation lines yet" in text
    assert "metrics.jsonl is not there" in text


@pytest.mark.parametrize("value", [None, 3, "many", [], {}, [None], {"loss": "low", "bands": 3, "data": [1]}])
def test_ill_typed_records_become_dashes(tmp_path: Path, value: object) -> None:
    (tmp_path / "palavra.toml").write_bytes(b"\xff\x00")
    line = {"kind": "train", "step": 10, "loss": value, "learning_rate": value, "tokens": value}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + '\n[1]\nnot json\n{"kind":"valid","step":"x"}\n')
    wrapped = {"data": value, "model": value, "training": value, "budget": value, "environment": value}
    (tmp_path / "run.json").write_text(json.dumps(wrapped))
    (tmp_path / "evaluation.json").write_text(json.dumps(value))
    (tmp_path / "examples.json").write_text(json.dumps([value, {"text": value, "fills": value}, {"fills": [value]}]))
    text = Structure(write_report(tmp_path).read_text(encoding="utf-8")).text
    assert "unreadable" in text
    assert "line 3" in text


def test_strange_characters_neither_break_nor_vanish(tmp_path: Path) -> None:
    make_run(tmp_path, steps=40)
    odd = "\x00\x0b \ud800 \u202e שלום 文字 [MASK] [MASK]"
    examples = [{"text": odd, "fills": [[{"token": " ", "probability": float("nan")}]]}]
    (tmp_path / "examples.json").write_text(json.dumps(examples))
    band = {"band": "文字 $x$ <b>\n", "accuracy": 0.5, "accuracy_at_5": None, "loss": 1e308}
    (tmp_path / "evaluation.json").write_text(json.dumps({"bands": [band]}))
    structure = Structure(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "שלום 文字" in structure.text
    assert "␣" in structure.text
    assert "?? $x$ <b>" in structure.text


def test_mask_of_another_tokenizer(tmp_path: Path) -> None:
    make_run(tmp_path, steps=40)
    examples = [{"text": "say [MASK] or <mask> .", "fills": [[{"token": "yes", "probability": 0.5}]]}]
    (tmp_path / "examples.json").write_text(json.dumps(examples * 2))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert page.count("<mark>yes</mark><rt>[MASK]</rt>") == 2  # both fit: the default's name wins
    (tmp_path / "examples.json").write_text(json.dumps(examples).replace("[MASK] or ", ""))
    assert "<mark>yes</mark><rt>&lt;mask&gt;</rt>" in write_report(tmp_path).read_text(encoding="utf-8")


def test_tables_show_what_is_there_and_no_more(tmp_path: Path) -> None:
    make_run(tmp_path, steps=40)
    (tmp_path / "run.json").write_text(json.dumps({"data": {"documents": 3, "repaired_lines": 7, "odd": [1]}}))
    text = " ".join(Structure(write_report(tmp_path).read_text(encoding="utf-8")).text.split())
    assert "Data Documents3 Repaired lines7 Packing and masking" in text


def test_directory_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(PalavraError, match="is not a run") as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    with pytest.raises(PalavraError):
        write_report(tmp_path / "nowhere")


def test_resumed_run_replaces_the_steps_it_repeats(tmp_path: Path) -> None:
    steps = [(10, 5.0), (20, 4.0), (30, 3.0), (20, 4.5), (30, 3.5)]
    lines = [{"kind": "train", "step": step, "loss": loss} for step, loss in steps]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    train = read_records(tmp_path).train
    assert [(row["step"], row["loss"]) for row in train] == [(10, 5.0), (20, 4.5), (30, 3.5)]


def test_stopped_run_says_why(tmp_path: Path) -> None:
    make_run(tmp_path, steps=40)
    run = RUN | {"training": RUN["training"] | {"stopped": "loss is NaN at step 40"}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert "Training stopped early: loss is NaN at step 40" in write_report(tmp_path).read_text(encoding="utf-8")


def test_long_runs_make_small_pictures() -> None:
    steps = np.arange(1, 100_001, dtype=np.float64)
    values = 3 + np.random.default_rng(0).normal(0, 0.1, steps.size)
    values[54_321] = 7.5  # thinning must keep a spike
    series = Series(steps=steps, values=values)
    thin = series.thinned()
    assert len(thin) <= 400
    assert thin.values.max() == 7.5
    assert np.all(np.diff(thin.steps) > 0)
    assert len(series.smoothed()) <= 200
    assert len(charts.loss(series, Series.of([], "loss"))) < 30_000


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=600))
def test_smoothing_stays_within_what_was_logged(values: list[float]) -> None:
    found = np.array(values)
    series = Series(steps=np.arange(1.0, len(values) + 1), values=found)
    smooth = series.smoothed()
    assert smooth.steps[0] == 1
    assert smooth.steps[-1] == len(values)
    assert smooth.values[0] == pytest.approx(found[0], abs=1e-6)
    assert smooth.values.min() >= found.min() - 1e-6
    assert smooth.values.max() <= found.max() + 1e-6


def test_series_leaves_out_what_is_no_number() -> None:
    rows: list[dict[str, Any]] = [
        {"step": 1, "x": 2},
        {"step": 2, "x": None},
        {"step": 3, "x": float("nan")},
        {"step": 4, "x": 0.5},
        {},
    ]
    series = Series.of(rows, "x")
    assert series.steps.tolist() == [1, 4]
    assert series.values.tolist() == [2, 0.5]
    assert len(Series.of(rows, "y")) == 0


def test_b_plot_loss_against_probability_is_the_logarithm() -> None:
    """B-plot: the picture's own curve is -log p to the rounding of its coordinates, with the chapter's examples."""
    examples = charts.negative_log(np.array([0.7, 0.4]))
    assert examples == pytest.approx([0.356675, 0.916291], abs=1e-6)
    band = Band(name="1-100", accuracy=0.6, accuracy_at_5=0.9, loss=math.log(2))
    svg = charts.loss_against_probability([band], [0.7, 0.4], None, 4096)
    assert "ranks 1-100: loss 0.69, p = 0.5." in svg
    assert "even guess among 4,096: loss 8.32" in svg
    path = re.search(r'<g id="probability-curve"><path d="([^"]+)"', svg)
    assert path is not None
    points = np.array([pair.split() for pair in path[1].removeprefix("M ").split(" L ")], dtype=np.float64)
    ticks = {
        text: (float(x), float(y))
        for x, y, text in re.findall(r'<text [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*>([\d.]+)</text>', svg)
    }
    left, right = ticks["0.0"][0], ticks["1.0"][0]  # centred under their places
    high, low = ticks["8"][1], ticks["0"][1]  # beside their places, all shifted alike
    probability = (points[:, 0] - left) / (right - left)
    height = (points[:, 1] - points[:, 1].max()) * 8 / (high - low)  # the curve ends at p = 1, loss 0
    middle = probability > 0.05  # where a tenth of a unit is little
    assert middle.sum() > 20
    assert height[middle] == pytest.approx(charts.negative_log(probability[middle]), abs=0.02)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (13_906, "13,906"),
        (1_234_567, "1.23 M"),
        (999_999.9, "1,000,000"),
        (2.5e9, "2.5 B"),
        (0.98, "0.98"),
        (10**400, "–"),
        (float("inf"), "–"),
        (True, "–"),
        ("3", "–"),
    ],
)
def test_counts_as_people_write_them(value: object, shown: str) -> None:
    shown = shown.replace(" ", formatting.SPACE).replace("–", formatting.ABSENT)
    assert formatting.count(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0_s"),
        (59.96, "1_min 00_s"),
        (184.3, "3_min 04_s"),
        (3599.7, "1_h 00_min"),
        (3725, "1_h 02_min"),
        (200_000, "2_d 08_h"),
        (-1, formatting.ABSENT),
    ],
)
def test_durations_as_people_write_them(seconds: float, shown: str) -> None:
    assert formatting.duration(seconds) == shown.replace("_", formatting.SPACE)


def test_other_numbers_and_tokens() -> None:
    assert formatting.percent(0.3764) == "37.6%"
    assert formatting.percent(1e-5) == "<0.1%"
    assert formatting.percent(0.0) == "0.0%"
    assert formatting.percent(None) == formatting.ABSENT
    assert formatting.size(2_540_117) == f"2.54{formatting.SPACE}MB"
    assert formatting.size(2.5e9) == f"2.5{formatting.SPACE}GB"
    assert formatting.size(12) == f"12{formatting.SPACE}bytes"
    assert formatting.perplexity(46.123) == "46.1"
    assert formatting.perplexity(12_345.6) == "12,346"
    assert formatting.visible("best") == "best"
    assert formatting.visible(" \n") == "␣↵"
    assert formatting.visible("") == "(empty)"
    assert formatting.visible("a\x00") == "aU+0000"


@given(st.one_of(st.none(), st.floats(), st.integers(), st.text(), st.booleans()))
def test_no_value_breaks_a_number(value: object) -> None:
    for form in (formatting.count, formatting.size, formatting.duration, formatting.percent, formatting.loss):
        assert form(value)
    assert formatting.perplexity(value)


def test_a_causal_run_shows_how_it_goes_on(tmp_path: Path) -> None:
    run = make_run(tmp_path / "reviews")
    (run / "examples.json").write_text(json.dumps([{"prompt": "Era <uma>", "text": " vez & so on", "reason": "end"}]))
    (run / "evaluation.json").write_text(
        json.dumps({"tokens": 9, "loss": 2.0, "perplexity": 7.4, "bits_per_byte": 1.5})
    )
    page = write_report(run).read_text(encoding="utf-8")
    assert "How it goes on" in page
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
