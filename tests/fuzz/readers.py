"""Generators of damaged texts and labelled examples, in every format, encoding and compression."""

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from builders.labelled_files import conllu, squad

from fuzz.case import Case, Generator
from fuzz.mutation import damaged, damaged_bytes, damaged_text, json_bytes, odd, plain_json
from fuzz.world import FINETUNE, LINES, PRETRAIN, World, records

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": partial(gzip.compress, compresslevel=1),
    ".bz2": partial(bz2.compress, compresslevel=1),
    ".xz": partial(lzma.compress, preset=0),
    ".zst": lambda content: pa.compress(content, codec="zstd", asbytes=True),
}
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "utf-7", "shift_jis", "koi8-r"]
# Names that codecs has, or has not, and that are no encoding of texts or of these.
STRANGE = ["undefined", "idna", "punycode", "rot13", "base64", "zlib", "hex", "unicode_escape", "raw_unicode_escape",
           "mbcs", "", " ", "a\0b", "x" * 5000, "utf_8_\udcff", "\x1b[31m", "ascii", "cp037", "utf-16-be"]  # fmt: skip
BOMB = 256 << 20  # bytes
TEXT_READERS = ("fill", "embed", "score", "generate")


def encoded(random: Random, text: str) -> tuple[bytes, list[str]]:
    """A text in some encoding, and the options that say which; sometimes wrongly."""
    chance = random.random()
    name = "utf-8" if chance < 0.5 else random.choice(ENCODINGS)
    content = (
        text.encode(name, random.choice(["replace", "ignore"]))
        if name != "utf-8"
        else text.encode(name, "surrogatepass")
    )
    if chance > 0.94:
        return content, ["--encoding", random.choice(STRANGE)]
    said = random.choice(ENCODINGS) if chance > 0.88 else name
    return content, [] if said == "utf-8" else ["--encoding", said]


def compressed(random: Random, content: bytes) -> tuple[bytes, str, bool]:
    """The content in a compressed file that may be damaged, the suffix, and whether it is a bomb; or as it is."""
    if random.random() < 0.6:
        return damaged_bytes(random, content) if random.random() < 0.3 else content, "", False
    suffix = random.choice(list(COMPRESSORS))
    chance = random.random()
    is_bomb = chance < 0.06 and suffix != ".bz2"
    if is_bomb:
        content = bomb(
            suffix, content, random.choice([b"a", b"\n", b"[", b'{"a":', b'"', b",", b"\0", b" ", b"a\tb\n"])
        )
    else:
        content = COMPRESSORS[suffix](content)
        content += random.choice([b"", b"", content, b"\0" * 100, b"trailing"]) if chance < 0.3 else b""
        content = damaged_bytes(random, content) if chance > 0.7 else content
    return content, random.choice([suffix, suffix, suffix, suffix.upper(), random.choice(list(COMPRESSORS))]), is_bomb


def bomb(suffix: str, content: bytes, piece: bytes) -> bytes:
    """A small file that begins with the content and goes on for very long with one piece. Members of each format may
    follow each other."""
    part = piece * ((16 << 20) // len(piece))
    return COMPRESSORS[suffix](content.rstrip(b'"}]\n')) + COMPRESSORS[suffix](part) * (BOMB // len(part))


def texts(random: Random, world: World, folder: Path) -> Case:
    """Text for a tokenizer, shards or pretraining."""
    content, suffix, options, endless = _source(random)
    source = _write(folder, f"text{suffix}", content)
    documents = random.choice([[], ["--lines"], ["--documents", "blank-line"]])
    command = random.choice(["tokenizer", "prepare", "pretrain"])
    if command == "tokenizer":
        kind = random.choice(["bpe", "wordpiece", "unigram"])
        arguments = ["tokenizer", "train", source, "--vocab-size", "300", "--algorithm", kind]
    elif command == "prepare":
        arguments = ["prepare", source, "--tokenizer", str(world.runs["pretrain"])]
    else:
        arguments = ["pretrain", source, "--vocab-size", "300", *PRETRAIN, "--steps", "1"]
    return Case([*arguments, *documents, *options, "--out", "out", "--quiet"], out="out", endless=endless)


def _source(random: Random) -> tuple[bytes, str, list[str], bool]:
    """A source of text: its content, suffix and options, and whether it is a bomb."""
    lines = [
        damaged_text(random, line) if random.random() < 0.1 else line for line in LINES[: random.choice([1, 20, 120])]
    ]
    kind = random.choice([".txt", ".txt", ".jsonl", ".csv", ".tsv", ".parquet"])
    if kind == ".parquet":
        return parquet(random, [{"text": line} for line in lines]), kind, [], False
    if kind == ".txt":
        text = random.choice(["\n", "\n\n", "\r\n"]).join(lines)
    elif kind == ".jsonl":
        rows = [damaged(random, {"text": line}) if random.random() < 0.1 else {"text": line} for line in lines]
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    else:
        text = table(random, [{"text": line, "b": "1"} for line in lines], kind)
    content, options = encoded(random, text)
    content, suffix, endless = compressed(random, content)
    return content, kind + suffix, options, endless


def lines(random: Random, world: World, folder: Path) -> Case:
    """One text a line, for commands that use a model."""
    text = "\n".join(
        damaged_text(random, line.replace("viu", "[MASK]")) if random.random() < 0.3 else line.replace("viu", "[MASK]")
        for line in LINES[: random.choice([1, 5, 40])]
    )
    content, suffix, endless = compressed(random, text.encode("utf-8", "surrogatepass"))
    file = _write(folder, f"lines.txt{suffix}", content)
    stdin = folder / file if random.random() < 0.2 and not suffix else None
    name = "-" if stdin else file
    command = random.choice([*TEXT_READERS, "predict"])
    if command == "generate":
        arguments = [command, str(world.pretrained["llama"]), "--file", name, "--max-tokens", "2", "--json"]
    elif command == "predict":
        arguments = [command, str(world.models["classification"]), "--file", name]
    else:
        arguments = [
            command,
            str(world.pretrained["bert"]),
            "--file",
            name,
            *(["--json"] if command != "embed" else []),
        ]
    return Case(arguments, json_output=True, stdin=stdin, endless=endless)


def table(random: Random, rows: list[dict[str, Any]], kind: str) -> str:
    """Rows as a table, with a text that may be damaged."""
    stream = io.StringIO()
    delimiter = "\t" if kind == ".tsv" else random.choice([",", ",", ";", "|"])
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=random.choice(["\n", "\r\n"]))
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow([value if isinstance(value, str) else json.dumps(value) for value in row.values()])
    text = stream.getvalue()
    return damaged_text(random, text) if random.random() < 0.5 else text


def parquet(random: Random, rows: list[dict[str, Any]]) -> bytes:
    """Rows as a Parquet file with columns of unusual types, values that many rows share, or bytes that are damaged."""
    columns: dict[str, pa.Array] = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        try:
            columns[name] = _column(random, values)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            columns[name] = pa.array([json.dumps(value) for value in values])
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, compression=random.choice(["snappy", "zstd", "none"]))
    content = stream.getvalue()
    return damaged_bytes(random, content) if random.random() < 0.3 else content


def _column(random: Random, values: list[Any]) -> pa.Array:
    chance = random.random()
    if chance < 0.4:
        return pa.array(values)
    if chance < 0.5:
        return pa.array(values).dictionary_encode()
    if chance < 0.6:
        return pa.array([None if random.random() < 0.5 else value for value in values])
    if chance < 0.65:
        shared = pa.array(["a" * (8 << 20)])
        return pa.DictionaryArray.from_arrays(pa.array([0] * len(values), pa.int8()), shared)
    kind = random.choice(
        [pa.binary(), pa.large_string(), pa.date32(), pa.timestamp("ns", "UTC"), pa.decimal128(30, 4), pa.float16(),
         pa.null(), pa.list_(pa.string()), pa.struct([("a", pa.int64())]), pa.map_(pa.string(), pa.int64()),
         pa.duration("s"), pa.uint64(), pa.bool_(), pa.time64("us")]
    )  # fmt: skip
    plain: Any = {pa.binary(): b"\xff\0", pa.list_(pa.string()): ["a", None], pa.struct([("a", pa.int64())]): {"a": 1},
                  pa.map_(pa.string(), pa.int64()): [("a", 1)]}.get(kind)  # fmt: skip
    return pa.array([plain] * len(values), kind) if plain is not None else pa.array([1] * len(values)).cast(kind)


def labelled(random: Random, world: World, folder: Path) -> Case:
    """Labelled examples of every kind of task, in every format."""
    kind = random.choice(list(world.models))
    rows: list[Any] = records(kind)
    if random.random() < 0.7:
        place = random.randrange(len(rows))
        rows[place] = damaged(random, rows[place])
    flat = all(isinstance(value, str) for value in records(kind)[0].values())
    suffix = random.choice([".csv", ".tsv", ".jsonl", ".json", ".parquet"] if flat else [".jsonl", ".json", ".parquet"])
    if suffix == ".parquet":
        whole = [row for row in rows if isinstance(row, dict) and row]
        content = parquet(random, [{name: row.get(name) for name in whole[0]} for row in whole])
        return _use(random, world, kind, _write(folder, f"data{suffix}", content), [])
    if suffix in (".csv", ".tsv"):
        alike = [row for row in rows if isinstance(row, dict) and row.keys() == records(kind)[0].keys()]
        content, options = encoded(random, table(random, alike, suffix))
    else:
        options = []
        content = b"\n".join(map(plain_json, rows)) if suffix == ".jsonl" else json_bytes(random, rows)
    content, compression, _ = compressed(random, content)
    return _use(random, world, kind, _write(folder, f"data{suffix}{compression}", content), options)


def conll(random: Random, world: World, folder: Path) -> Case:
    """Words with their tags, as CoNLL and CoNLL-U."""
    if random.random() < 0.5:
        suffix, text = ".conll", "the O\nred B-X\nboat I-X\n\na O\nboat B-X\n\n" * 3
    else:
        suffix, text = ".conllu", conllu("1 the DET _", "2-3 redboat _ _", "2 red B-X _", "3 boat O SpaceAfter=No") * 4
    if random.random() < 0.5:
        text = text.replace(random.choice(["boat", "B-X", "1", "_"]), str(odd(random)), random.choice([1, 100]))
    elif random.random() < 0.7:
        text = damaged_text(random, text)
    content, options = encoded(random, text)
    content, compression, _ = compressed(random, content)
    return _use(random, world, "token-classification", _write(folder, f"data{suffix}{compression}", content), options)


def squads(random: Random, world: World, folder: Path) -> Case:
    """Questions with their answers, as SQuAD has them."""
    answers = [{"text": "Évora", "answer_start": 17}]
    value = json.loads(squad({"answers": answers}, {"answers": answers, "id": "r"}))
    content = json_bytes(random, damaged(random, value))
    content, compression, _ = compressed(random, content)
    return _use(random, world, "question-answering", _write(folder, f"data.json{compression}", content), [])


def pairs(random: Random, world: World, folder: Path) -> Case:
    """Minimal pairs."""
    row = {"sentence_good": "the red boat", "sentence_bad": "the boat red", "UID": "order"}
    rows = [row] * 5 + [damaged(random, row)]
    content, compression, _ = compressed(random, b"\n".join(map(plain_json, rows)))
    source = _write(folder, f"pairs.jsonl{compression}", content)
    return Case(
        ["compare-pairs", str(world.pretrained[random.choice(["bert", "llama"])]), source, "--json"], json_output=True
    )


def _use(random: Random, world: World, kind: str, source: str, options: list[str]) -> Case:
    """A command that reads labelled examples of a kind."""
    command = random.choice(["plan", "finetune", "evaluate", "predict"])
    model = str(world.models[kind])
    if command == "evaluate":
        return Case(["evaluate", model, source, "--json", "--quiet", *options], json_output=True)
    if command == "predict":
        return Case(["predict", model, "--file", source, *options], json_output=True)
    named = "classification" if kind == "pairs" else kind
    arguments = ["finetune", named, source, "--model", str(world.pretrained["bert"]), *FINETUNE, *options]
    if command == "plan":
        return Case([*arguments, "--dry-run"])
    return Case([*arguments, "--steps", "1", "--out", "out", "--json"], json_output=True, out="out")


def _write(folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return name


READERS: dict[str, Generator] = {
    "texts": texts, "lines": lines, "labelled": labelled, "conll": conll, "squad": squads, "pairs": pairs,
}  # fmt: skip
