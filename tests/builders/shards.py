"""A small corpus, its tokenizer, and what shards of it hold."""

import random
from pathlib import Path
from typing import Any

from palavra.data.config import SourceConfig
from palavra.data.shards import Corpus, StoredDocuments
from palavra.tokenizer import Tokenizer
from palavra.tokenizer.config import TokenizerConfig

WORDS = ["the", "film", "movie", "best", "worst", "year", "plot", "gato", "correu", "rua", "coração", "ação", "is"]


def sentences(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [f"{number} " + " ".join(draw.choices(WORDS, k=draw.randint(3, 20))) for number in range(count)]


TOKENIZER = Tokenizer.train(sentences(300), TokenizerConfig(vocab_size=330))


def write(path: Path, texts: list[str]) -> SourceConfig:
    path.write_text("\n".join(texts) + "\n")
    return SourceConfig(sources=(str(path),), documents="line")


def opened(directory: Path, **options: Any) -> Corpus:
    return Corpus.open(directory, TOKENIZER.fingerprint, **options)


def texts_of(documents: StoredDocuments) -> list[str]:
    return [TOKENIZER.decode(documents.tokens(index).tolist()) for index in range(len(documents))]


def files_of(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.glob("*.arrow")}
