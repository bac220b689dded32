"""What the method claims of models that were trained (A, C): small real trainings, with scores against chance."""

import json
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

import palavra
from palavra.inference.masked import MaskedModel
from palavra.metrics.scores import Scores

pytestmark = pytest.mark.usefixtures("without_report")

ROOT = Path(__file__).parents[2]
TINY = (
    "model.hidden_size=48", "model.num_layers=2", "model.num_heads=3", "model.context=48", "train.batch_tokens=1024",
    "train.compile=off", "train.eval_every=1000", "train.save_every=1000", "train.device=cpu", "train.threads=1",
)  # fmt: skip
# The words of the contexts of each sense.
PARK = ("praça", "jardim", "parque", "bosque", "quintal", "lago", "flores", "árvores")
MONEY = ("dinheiro", "cofre", "moedas", "juros", "cheque", "dívida", "contas", "crédito")
VERBS = ("ficou", "esperou", "entrou", "parou")


def sentences(words: tuple[str, ...], place: str = "banco") -> Iterator[str]:
    """Sentences that differ between the senses in these words alone."""
    for verb, (first, second) in product(VERBS, product(words, words)):
        if first != second:
            yield f"ela {verb} no {place} perto de {first} com {second}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MaskedModel:
    """A tiny model, pretrained on sentences of both senses."""
    texts = [*sentences(PARK), *sentences(MONEY)]
    texts += [text.replace("no banco", "ali") for text in texts]
    run = palavra.pretrain(
        texts=texts, out=tmp_path_factory.mktemp("senses") / "model", steps=150, vocab_size=400, preset="bert",
        optimizer="adamw", learning_rate=5e-3, set=TINY, quiet=True,
    )  # fmt: skip
    return palavra.load(run.directory, kind="masked", device="cpu")


def vectors_of(model: MaskedModel, texts: list[str]) -> npt.NDArray[np.float32]:
    """The vector of "banco" in each text, (n, D)."""
    found = []
    for one in model.embed(texts, pooling="token"):
        start = one.text.index("banco")
        inside = [i for i, (a, b) in enumerate(one.offsets) if start <= a and b <= start + len("banco")]
        found.append(one.vectors[inside].mean(0))
    return np.array(found)


def test_a_word_has_the_vector_of_its_sense_in_contexts_it_was_not_averaged_over__A_C4(model: MaskedModel) -> None:
    """ "banco" of the square and of the money: the nearer of two mean vectors, each over half of the contexts of a
    sense, is that of the sense in the other contexts. Guessing is right in half of them, and so is the static vector,
    which is the same in all."""
    halves = [[list(sentences(words))[start::2] for start in (0, 1)] for words in (PARK, MONEY)]
    near = [vectors_of(model, averaged).mean(0) for averaged, _ in halves]
    right = count = 0
    for sense, (_, others) in enumerate(halves):
        vectors = vectors_of(model, others)
        distances = np.stack([np.linalg.norm(vectors - mean, axis=1) for mean in near])
        right += int((distances.argmin(0) == sense).sum())
        count += len(vectors)
    assert count == 224
    assert right > binom.ppf(0.9999, count, 0.5), f"{right} of {count}"


# Applications, on text that people wrote: this repository's own pages.


def pages(name: str) -> list[str]:
    """The longer lines of prose of a page."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if re.match(r"[^\W\d]", line) and len(line.split()) > 8]


def languages() -> list[tuple[str, str]]:
    """Lines of the pages that are in two languages, and the language of each."""
    english = pages("README.md") + pages("docs/method.md")
    portuguese = pages("README.pt-BR.md") + pages("docs/method.pt-BR.md")
    common = set(english) & set(portuguese)
    lines = [(line, "English") for line in english] + [(line, "Portuguese") for line in portuguese]
    return [(line, label) for line, label in lines if line not in common]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return str(path)


def split(rows: list[Any]) -> tuple[list[Any], list[Any]]:
    """Every third is tested on."""
    return [row for n, row in enumerate(rows) if n % 3], rows[::3]


def scores_of(kind: Any, train: str, test: str, out: Path, body: Path, **options: Any) -> Scores:
    run: Any = palavra.finetune(
        kind, train, test=test, model=body, out=out, steps=options.pop("steps", 60), optimizer="adamw",
        learning_rate=3e-3, set=["train.device=cpu", "train.threads=1", "train.compile=off"], quiet=True, **options,
    )  # fmt: skip
    found: Scores = run.scores["task"]["test"]
    return found


@pytest.fixture(scope="module")
def body(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, pretrained on the text of the pages."""
    texts = [*pages("README.md"), *pages("README.pt-BR.md"), *pages("LOG.md"), *pages("docs/finetuning.md")]
    run = palavra.pretrain(
        texts=texts, out=tmp_path_factory.mktemp("pages") / "model", steps=40, vocab_size=1000, optimizer="adamw",
        learning_rate=5e-3, set=[*TINY, "model.context=128"], quiet=True,
    )  # fmt: skip
    return run.directory


def test_topics_of_real_lines_are_learned_to_a_score__C_apps(tmp_path: Path, body: Path) -> None:
    """Whether a line of this repository's pages is English or Portuguese, as people wrote it."""
    train, test = split(languages())
    assert len(test) > 40
    files = [
        write_jsonl(tmp_path / name, [{"text": text, "label": label} for text, label in rows])
        for name, rows in (("train.jsonl", train), ("test.jsonl", test))
    ]
    scores = scores_of("classification", files[0], files[1], tmp_path / "run", body, head="linear-cls")
    majority = max(np.unique([label for _, label in test], return_counts=True)[1]) / len(test)
    assert scores.values["accuracy"] > max(0.85, majority)
    assert scores.intervals["accuracy"].low > majority


def test_dates_of_a_real_log_are_extracted_to_a_score__C_apps(tmp_path: Path, body: Path) -> None:
    """The dates in the repository's own list of changes and log, which a pattern finds and the model must learn."""
    words = [re.findall(r"\d{4}-\d\d-\d\d|\w+|[^\w\s]", line) for line in (ROOT / "LOG.md").read_text().splitlines()]
    dated = [line[:20] for line in words if any(re.fullmatch(r"\d{4}-\d\d-\d\d", word) for word in line)]
    others = [line[:20] for line in words if len(line) > 5][: 2 * len(dated)]
    parts = split(dated + others)

    def column(lines: list[list[str]]) -> str:
        tagged = ("\n".join(f"{w} {'B-DATE' if re.fullmatch(r'[0-9-]{10}', w) else 'O'}" for w in one) for one in lines)
        return "\n\n".join(tagged) + "\n"

    files = []
    for name, lines in zip(("train.conll", "test.conll"), parts, strict=True):
        (tmp_path / name).write_text(column(lines), encoding="utf-8")
        files.append(str(tmp_path / name))
    scores = scores_of("token-classification", files[0], files[1], tmp_path / "run", body)
    assert scores.values["f1"] > 0.8
