"""The code blocks of the documentation, and a small stand-in for every file that they read."""

import bz2
import csv
import gzip
import io
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEXTS = [
    "one of the best movies of the year",
    "a young man falls in love with a woman",
    "the movie is too long and the jokes are not funny",
    "the special effects are impressive, but the story is not",
]
# What replaces the length of a training run.
LENGTH = re.compile(r"\b(steps|epochs|minutes)=[\d.]+")
LENGTHS = ("--steps", "--minutes", "--epochs", "--trials", "--max-tokens")


def text_of(page: Path | str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def labelled_blocks(page: Path | str) -> list[tuple[str, str]]:
    """Language and code of each block of a page, in order; outside of code, languages are empty."""
    return BLOCK.findall(text_of(page))


def command_lines(code: str) -> Iterator[str]:
    """The commands of a console block, each in one line."""
    yield from (line for line in code.replace("\\\n", " ").splitlines() if line.strip())


def shorten(line: str) -> list[str]:
    """The arguments of a documented training command, with a length of two steps."""
    arguments = shlex.split(line, comments=True)[1:]
    kept: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if argument not in LENGTHS and before not in LENGTHS:
            kept.append(argument)
    if "--resume" in kept:
        return kept
    match kept[0]:
        case "pretrain":
            return [*kept, "--steps", "2", "--set", "train.threads=1"]
        case "finetune" | "learning-curve":
            return [*kept, "--steps", "2"]
        case "sweep":
            return [*kept, "--trials", "2", "--set", "train.steps=2"]
        case "generate":
            return [*kept, "--max-tokens", "4"]
    return arguments


def write_files(folder: Path) -> None:
    """Every file that the pages read, small: texts, tables with each named column, and task files."""
    reviews = [
        {"text": f"{text}, {number}", "critica": f"{text}, {number}", "label": word, "verdict": word, "nota": word}
        for number, (text, word) in enumerate((text, word) for text in TEXTS * 5 for word in ("fresh", "rotten"))
    ]
    numbered = [(f"{text} {number}", TEXTS[number % 4]) for text in TEXTS for number in range(6)]
    pairs = [
        {
            "text_a": a,
            "text_b": b,
            "premise": a,
            "hypothesis": b,
            "a": a,
            "b": b,
            "sentence_good": a,
            "sentence_bad": b[::-1],
        }
        | {"verdict": ("yes", "no")[i % 2], "label": ("yes", "no")[i % 2], "score": f"{i % 5}.0"}
        for i, (a, b) in enumerate(numbered)
    ]
    for name in ("reviews.csv", "more-reviews.csv", "other-reviews.csv", "new-reviews.csv"):
        encoding = "latin-1" if name.startswith("other") else "utf-8"
        (folder / name).write_text(table(reviews), encoding=encoding)
    (folder / "reviews.csv.bz2").write_bytes(bz2.compress(table(reviews).encode()))
    for name in ("train.csv", "test.csv", "pairs.csv"):
        (folder / name).write_text(table(pairs), encoding="utf-8")
    (folder / "pairs.jsonl").write_text(json_lines(pairs), encoding="utf-8")
    for place in ("demo/reviews", "texts", "more", "archive/1901", "pt-novels"):
        (folder / place).mkdir(parents=True)
    for name in ("train", "test"):
        (folder / f"demo/reviews/{name}.jsonl").write_text(json_lines(reviews), encoding="utf-8")
        novels = "\n".join(json.dumps({"text": f"{text}. {i}"}) for i in range(5) for text in TEXTS).encode()
        with pa.CompressedOutputStream(str(folder / f"pt-novels/{name}.jsonl.zst"), "zstd") as file:
            file.write(novels)
    for number in range(40):
        (folder / f"texts/{number}.txt").write_text(f"{TEXTS[number % 4]}, number {number}.\n", encoding="utf-8")
    bodies = json_lines([{"body": f"{text}, {number}"} for text in TEXTS for number in range(10)]).encode()
    for name in ("archive/1901/letters.jsonl.gz", "more/letters.jsonl.gz"):
        (folder / name).write_bytes(gzip.compress(bodies))
    letters = "\n\n".join(f"Caro irmão, {text}, {number}." for text in TEXTS for number in range(10))
    (folder / "letters.txt").write_text(letters, encoding="latin-1")


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Records as a CSV file."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def json_lines(rows: Sequence[Mapping[str, object]]) -> str:
    """Records as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)
