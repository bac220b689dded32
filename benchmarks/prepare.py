"""How fast text becomes token shards, and in how much memory.

Makes a corpus of the asked size in a temporary folder, trains a tokenizer on it, then measures in turn, each
in a process of its own: `Tokenizer.encode_batch` of the tokenizers library alone on text that lies in memory
already, and `palavra.data.shards.write_shards` from the file on disk to finished, hashed shards. Prints
megabytes of text a second and the peak memory of the second process.

    python benchmarks/prepare.py --megabytes 2000 --text FILE...

`--text` names real text (any source that Palavra reads) whose sentences are drawn at random to make up the
corpus; without it, sentences of made-up words with a natural distribution of frequencies.
"""

import argparse
import json
import os
import platform
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import accumulate, islice
from pathlib import Path

from palavra.data.config import SourceConfig
from palavra.data.shards import write_shards
from palavra.data.sources import Tally, read_documents
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig

VOCABULARY = 16_384
MEAN_SENTENCES = 18  # of a document: about 2 KB of text
ALONE_BYTES = 64_000_000  # what `encode_batch` alone is measured on
BATCH_BYTES = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--text", nargs="*", default=[])
    parser.add_argument("--column", default="text")
    parser.add_argument("--lines", action="store_true", help="make every sentence a document")
    parser.add_argument("--rounds", type=int, default=3, help="of encode_batch and prepare in turn")
    parser.add_argument("--run", nargs=3, metavar=("WHAT", "CORPUS", "TOKENIZER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        measure(*options.run)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


def compare(options: argparse.Namespace, folder: Path) -> None:
    corpus = folder / "corpus.jsonl"
    sentences = real(options.text, options.column) if options.text else made_up()
    size, documents = write_corpus(
        corpus, sentences, options.megabytes * 1_000_000, 1 if options.lines else MEAN_SENTENCES
    )
    config = TokenizerConfig(vocab_size=VOCABULARY, sample_bytes=20_000_000)
    source = SourceConfig(sources=(str(corpus),))
    started = time.perf_counter()
    texts = (document.text for document in islice(read_documents(source, Tally()), 20_000))
    Tokenizer.train(texts, config).save(folder / "tokenizer")
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{machine}; {size / 1e6:,.0f} MB of text in {documents:,} documents")
    print(f"tokenizer of {VOCABULARY:,} entries trained in {time.perf_counter() - started:.1f} s", flush=True)
    results: dict[str, list[dict[str, float]]] = {"alone": [], "prepare": []}
    for _ in range(options.rounds):
        for what in results:
            command = [sys.executable, __file__, "--run", what, str(corpus), str(folder / "tokenizer")]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            results[what].append(json.loads(printed))
    print("| what | MB/s (median) | CPU seconds a MB | peak memory, MB |\n|---|---|---|---|")
    for what, name in (("alone", "`encode_batch` alone"), ("prepare", "`prepare`, file to shards")):
        speed, cpu, memory = (
            statistics.median(run[key] for run in results[what]) for key in ("speed", "cpu", "memory")
        )
        print(f"| {name} | {speed:.2f} | {cpu:.3f} | {memory:,.0f} |")


def measure(what: str, corpus: str, tokenizer_folder: str) -> None:
    """One measurement, in a fresh process; prints JSON."""
    tokenizer = Tokenizer.load(tokenizer_folder)
    source = SourceConfig(sources=(corpus,))
    if what == "alone":
        batches, size = in_memory(source)
        backend = tokenizer._prompts
        started, cpu = time.perf_counter(), time.process_time()
        for batch in batches:
            backend.encode_batch(batch, add_special_tokens=False)
    else:
        with tempfile.TemporaryDirectory(dir=Path(corpus).parent) as folder:
            started, cpu = time.perf_counter(), time.process_time()
            size = write_shards(source, tokenizer, folder).bytes
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(json.dumps({"speed": size / 1e6 / seconds, "cpu": cpu / (size / 1e6), "memory": peak_memory() / 1e6}))


def peak_memory() -> int:
    """Bytes of this process's largest resident set; `getrusage` may show that of the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        assert found is not None
        return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_memory(source: SourceConfig) -> tuple[list[list[str]], int]:
    batches: list[list[str]] = [[]]
    size = filled = 0
    for document in read_documents(source, Tally()):
        batches[-1].append(document.text)
        size, filled = size + document.bytes, filled + document.bytes
        if filled > BATCH_BYTES:
            batches.append([])
            filled = 0
        if size > ALONE_BYTES:
            break
    return batches, size


# The corpus


def write_corpus(path: Path, sentences: Iterator[str], size: int, mean: int) -> tuple[int, int]:
    """Documents of log-normal numbers of sentences, as JSON lines; returns bytes of text and documents."""
    draw = random.Random(1)
    written = documents = 0
    with open(path, "w", encoding="utf-8") as file:
        while written < size:
            number = 1 if mean == 1 else max(1, round(mean * draw.lognormvariate(-0.5, 1)))
            text = " ".join(islice(sentences, number)) + f" {documents}"  # so that none is a duplicate
            file.write(json.dumps({"id": documents, "text": text}, ensure_ascii=False) + "\n")
            written += len(text.encode())
            documents += 1
    return written, documents


def real(sources: list[str], column: str) -> Iterator[str]:
    """Sentences of real text, at random and without end."""
    config = SourceConfig(sources=tuple(sources), column=column)
    texts = (document.text for document in read_documents(config, Tally()))
    found = [sentence for text in texts for sentence in re.split(r"(?<=[.!?])\s+", text) if sentence]
    draw = random.Random(0)
    while True:
        yield from draw.choices(found, k=10_000)


def made_up() -> Iterator[str]:
    """Sentences of 200,000 words of syllables, with Zipf's frequencies; commas, full stops, capitals, numbers."""
    draw = random.Random(0)
    syllables = [
        c + v + e
        for c in ("", *"bcdfglmnprstvz", "ch", "tr", "pl")
        for v in "aeiou"
        for e in ("", "r", "s", "n", "ção")
    ]
    words = ["".join(draw.choices(syllables, k=draw.choice((1, 1, 2, 2, 3, 4)))) for _ in range(200_000)]
    ends = list(accumulate(1 / (rank + 2.7) for rank in range(1, len(words) + 1)))
    while True:
        for text in (draw.choices(words, cum_weights=ends, k=draw.randint(4, 30)) for _ in range(1000)):
            if draw.random() < 0.2:
                text[draw.randrange(len(text))] = str(draw.randint(1, 2100))
            if len(text) > 12:
                text[len(text) // 2] += ","
            yield " ".join(text).capitalize() + "."


if __name__ == "__main__":
    main()
