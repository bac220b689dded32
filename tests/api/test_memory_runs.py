"""Whole runs on data in memory: what is learned, what the run keeps, and what is asked of the user."""

import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pandas
import pytest
from builders.evaluation import evaluate
from builders.finetuning import praise_and_blame, write_pretrained

import palavra
from palavra.api.results import FineTunedRun
from palavra.errors import PalavraError

FAST = ("train.device=cpu", "train.precision=float32", "train.compile=off", "train.threads=1")
WORDS = "um gato e um rato " * 60
REVIEWS = praise_and_blame(60)
FRAME = pandas.DataFrame({"Opinião do cliente": [one[0] for one in REVIEWS], "nota": [one[1] for one in REVIEWS]})


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    write_pretrained(folder)
    return folder / "bert"


def finetune(pretrained: Path, train: Any = None, **options: Any) -> FineTunedRun:
    options = {"epochs": 1, "learning_rate": 3e-3, "model": pretrained, "set": FAST, "quiet": True, **options}
    found: FineTunedRun = palavra.finetune("classification", train, **options)
    return found


def test_from_a_frame_with_odd_columns_to_predictions_without_naming_a_path(tmp_path: Path) -> None:
    model = palavra.pretrain(FRAME, steps=2, size="nano", quiet=True, set=FAST)
    assert set(model.scores) >= {"loss", "accuracy"}
    run = finetune(model.directory, FRAME, test=FRAME[:10])
    assert run.model.task()[1].spec.columns.text == "Opinião do cliente"
    assert run.scores["task"]["test"].examples == 10
    kept = run.save(tmp_path / "kept")
    with pytest.raises(PalavraError, match="kept exists already: choose another folder"):
        run.save(kept)
    folders = (model.directory, run.directory)
    del run, model
    assert not any(folder.exists() for folder in folders)
    recipe = (kept / "palavra.toml").read_text(encoding="utf-8")
    assert f'train = "{kept}/data/train.jsonl"' in recipe
    assert f'test = "{kept}/data/test.jsonl"' in recipe
    again, of_file = (evaluate(kept, source, quiet=True) for source in (FRAME, kept / "data" / "train.jsonl"))
    assert again.scores.values == of_file.scores.values
    assert again.predictions.to_pandas()["label"].isin(["fresh", "rotten"]).all()


def test_texts_and_labels_are_examples(pretrained: Path) -> None:
    texts, labels = FRAME["Opinião do cliente"], FRAME["nota"]
    by_column, apart = finetune(pretrained, FRAME), finetune(pretrained, texts=list(texts), labels=iter(labels))
    assert by_column.scores["task"]["valid"].values == apart.scores["task"]["valid"].values
    assert "<td>valid</td>" in apart._repr_html_()
    assert "<iframe" in apart.report._repr_html_()  # type: ignore[attr-defined]


def test_pairs_of_texts_are_examples(pretrained: Path) -> None:
    pairs = [(one[0], one[0][::-1]) for one in REVIEWS]
    run = finetune(pretrained, text_pairs=pairs, labels=FRAME["nota"])
    assert evaluate(run, text_pairs=pairs, labels=FRAME["nota"]).scores.examples == len(FRAME)
    with pytest.raises(PalavraError, match=r"^each text needs its label: give labels="):
        palavra.evaluate(run, text_pairs=pairs)
    assert run.model.task()[1].spec.columns.text_b == "text_b"


def test_a_run_on_memory_is_resumed_and_repeated_from_what_it_kept(pretrained: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(PalavraError, match="out= is missing: name the folder of the run to resume"):
        finetune(pretrained, FRAME, resume=True)
    for function in (palavra.sweep, palavra.learning_curve):
        with pytest.raises(PalavraError, match="out= is missing: name the folder of the run to resume"):
            function("classification", FRAME, model=pretrained, resume=True, quiet=True)
    straight = finetune(pretrained, (row for row in FRAME.to_dict("records")), out=out)
    assert palavra.finetune(recipe=out / "palavra.toml", out=tmp_path / "again", quiet=True).scores.keys() == {"task"}
    with pytest.raises(PalavraError, match="already holds a run"):
        finetune(pretrained, FRAME, out=out)
    assert straight.directory == out
    with pytest.raises(PalavraError, match="was begun with other train examples"):
        finetune(pretrained, FRAME[:-1], out=out, resume=True, epochs=None, learning_rate=None, model=None, set=())


def test_folds_sweeps_and_curves_take_memory(pretrained: Path, tmp_path: Path) -> None:
    folds = palavra.finetune(
        "classification", FRAME, model=pretrained, folds=2, steps=2, set=FAST, quiet=True, out=tmp_path / "folds"
    )
    assert set(folds.scores) == {"task/valid"}
    assert folds.model.predict("bom filme")["label"] in set(FRAME["nota"])
    sweep = palavra.sweep(
        "classification", FRAME, model=pretrained, trials=1, search=["train.steps=1,2"], set=FAST, quiet=True
    )
    assert sweep.scores["task/valid"]["accuracy"] >= 0
    curve = palavra.learning_curve(
        "classification", FRAME, test=FRAME, sizes=[8], model=pretrained, set=(*FAST, "train.batch_size=64"), quiet=True
    )
    assert [list(points) for points in curve.scores.values()] == [[8], [8]]
    assert curve.report.is_file()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"texts": ["a"]}, "each text needs its label: give labels="),
        ({"labels": ["a"]}, "labels= go with texts: give texts= or text_pairs= too"),
        ({"texts": ["a"], "text_pairs": [("a", "b")], "labels": ["x"]}, "give one of texts= and text_pairs="),
        (
            {"train": FRAME.assign(outra=FRAME["nota"])},
            "train: which column is the label.*'nota', 'outra'; name it with",
        ),
        ({"train": FRAME.assign(nota=None)}, "train:row 1: nota is None, not a label"),
        ({"train": FRAME, "label_smoothing": 2.0}, "^label_smoothing= is 2.0"),
        ({"train": FRAME, "learning_rate": -1}, "^learning_rate= is -1.0: it must be above 0"),
        ({"train": FRAME, "dropout": "much"}, "^dropout= must be a number"),
        ({"train": FRAME, "metric": "acuracy"}, "^metric= is 'acuracy', no score of task: use one of accuracy, "),
        ({"train": FRAME[:0]}, "^train is empty: give examples"),
        ({"train": FRAME.assign(nota=1)}, "^train has only one label, '1'"),
        ({"train": FRAME, "texts": ["a"], "labels": ["b"]}, "^the examples are given twice, as data and with texts="),
        ({"texts": "a", "labels": ["b"]}, "^texts= is one text: give a list of them"),
        ({"texts": ["a", "b"], "labels": ["b"]}, "^texts= and labels= differ in length, 2 and 1"),
    ],
)
def test_what_is_wrong_is_said_by_the_arguments_of_python(pretrained: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(PalavraError, match=said):
        finetune(pretrained, **given)


def test_words_with_labels_are_examples(pretrained: Path) -> None:
    """And one text is one assignment, and a report is written for a folder in text."""
    texts, labels = [["Maria", "canta"], ["Nada"]] * 8, [["B-PER", "O"], ["O"]] * 8
    run = palavra.finetune(
        "token-classification",
        texts=texts,
        labels=labels,
        model=pretrained,
        set="train.compile=off",
        steps=1,
        quiet=True,
    )
    assert palavra.write_report(str(run.directory)) == run.report
    assert run.scores["task"]["valid"].examples


@pytest.mark.parametrize("name", ["learning_rat", "learning-rate"])
def test_an_unknown_argument_is_said_with_the_nearest(pretrained: Path, name: str) -> None:
    with pytest.raises(TypeError, match=f"^unexpected keyword argument '{name}'; the nearest is 'learning_rate'$"):
        finetune(pretrained, train=FRAME, **{name: 1.0})


def test_wrong_things_for_a_model_are_one_line(pretrained: Path) -> None:
    model = palavra.load(pretrained, kind="masked")
    wrong: list[tuple[Any, str]] = [
        (lambda: palavra.load(pretrained, kind=cast(Any, "mask")), "^kind= is 'mask': use one of 'masked', 'causal'"),
        (
            lambda: model.embed("a", pooling=cast(Any, "men")),
            "^pooling= is 'men': use one of mean, cls, .*, token$",
        ),
        (lambda: palavra.evaluate(cast(Any, model)), "^model is of type MaskedModel: give the folder of a model"),
        (lambda: palavra.evaluate(pretrained, texts=["a"], labels=["b"]), "^labels= means nothing here"),
        (lambda: palavra.pretrain([], tokenizer=pretrained, size="nano", quiet=True), "^data: there is no text"),
    ]
    for call, said in wrong:
        with pytest.raises(PalavraError, match=said):
            call()
    assert len(repr(model)) < 2000


# In a process of its own, where nothing else allocates or puts off the collection of garbage.
PEAK = """
import sys, tracemalloc
from pathlib import Path
from palavra.data.config import SourceConfig
from palavra.data.memory import memory_source
from palavra.data import shards
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig

shards._BATCH_DOCUMENTS = 64  # so that a thousand texts fill many batches and shards
tokenizer = Tokenizer.train(["um gato e um rato"] * 5, TokenizerConfig(vocab_size=300))
for count in (100, 2_000, 22_000):
    folder = Path(sys.argv[1]) / str(count)
    folder.mkdir()
    texts = (f"{number:06} {sys.argv[2]}"[:1000] for number in range(count))
    tracemalloc.start()
    config = SourceConfig(sources=(memory_source("data", texts, folder),))
    assert shards.write_shards(config, tokenizer, folder / "shards", shard_tokens=1 << 16).documents == count
    print(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
"""


@pytest.mark.slow
def test_many_texts_from_a_generator_need_little_memory(tmp_path: Path) -> None:
    """Twenty megabytes more of text cost a fraction of that in memory: what is known of each document."""
    printed = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path), WORDS], capture_output=True, text=True, check=True
    )
    _, few, many = map(int, printed.stdout.split())
    assert many - few < 2_000_000
