"""Generators of damaged model directories, runs and shards."""

import json
import shutil
import struct
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import tomli_w

from fuzz.case import Case, Generator
from fuzz.mutation import damaged, damaged_bytes, damaged_text, json_bytes
from fuzz.world import World, records

PIECES = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "task.json"]
RECORDS = [
    "palavra.toml", "metrics.jsonl", "run.json", "evaluation.json", "held_out.json", "examples.json", "task.json",
    "repeated.toml", "sweep.json", "tokenizer.stamp", "train.log", "data/manifest.json", "data/train-00000.arrow",
    "state.json", "checksums.json", "weights.safetensors", "optimizer.safetensors",
]  # fmt: skip
TEXTS = ["the red boat", "um gato [MASK] pela rua"]


def model(random: Random, world: World, folder: Path, *, name: str) -> Case:
    """A model directory with one damaged file, and a command that uses it."""
    families = {**world.pretrained, **world.models}
    kind = random.choice(list(world.models) if name == "task.json" else list(families))
    shutil.copytree(families[kind], folder / "model")
    _damage(random, folder / "model" / name)
    if kind in world.models:
        commands = [
            ["predict", "model", "--file", str(_examples(world, folder, kind))],
            ["evaluate", "model", str(_examples(world, folder, kind)), "--json", "--quiet"],
        ]
    elif kind in ("llama", "gpt2"):
        commands = [
            ["generate", "model", TEXTS[0], "--max-tokens", "2", "--json"],
            ["score", "model", *TEXTS, "--json"],
        ]
    else:
        plan = ["finetune", *_changed(world.finetune, "--model", "model"), "--dry-run"]
        commands = [
            ["fill", "model", TEXTS[1], "--json"],
            ["embed", "model", *TEXTS],
            ["score", "model", *TEXTS, "--json"],
            plan,
        ]
    command = random.choice(commands)
    return Case(command, json_output=command[0] != "finetune")


def sharded(random: Random, world: World, folder: Path) -> Case:
    """A model of several weight files, whose index is damaged."""
    shutil.copytree(world.pretrained["bert"], folder / "model")
    weights = folder / "model" / "model.safetensors"
    header, _ = _parts(weights.read_bytes())
    weights.rename(folder / "model" / "model-00001-of-00001.safetensors")
    names = {name: "model-00001-of-00001.safetensors" for name in header if name != "__metadata__"}
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    path = folder / "model" / "model.safetensors.index.json"
    path.write_bytes(json_bytes(random, damaged(random, index)))
    return Case(["embed", "model", *TEXTS], json_output=True)


def run(random: Random, world: World, folder: Path) -> Case:
    """A run, finished or not, with one damaged file; it is reported, resumed or used."""
    kind = random.choice(list(world.runs))
    finished = random.random() < 0.5
    shutil.copytree((world.runs if finished else world.unfinished)[kind], folder / "run", symlinks=True)
    found = [path for path in sorted((folder / "run").rglob("*")) if path.is_file() and _kept(path)]
    _damage(random, random.choice(found))
    resumed = {
        "pretrain": ["pretrain", "--out", "run", "--resume", "--quiet"],
        "finetune": ["finetune", "--out", "run", "--resume", "--quiet"],
        "seeds": ["finetune", *world.finetune, "--set", "train.keep_checkpoints=true", "--set", "train.save_every=2",
                  "--seeds", "2", "--out", "run", "--resume"],
        "sweep": ["sweep", *world.finetune, "--set", "train.keep_checkpoints=true", "--set", "train.save_every=2",
                  "--trials", "2", "--search", "optimizer.learning_rate=1e-4,1e-3", "--out", "run", "--resume"],
    }[kind]  # fmt: skip
    commands = [resumed, resumed, ["report", "run"]]
    if finished and kind == "pretrain":
        commands += [
            ["evaluate", "run", "--quiet", "--json"],
            ["finetune", *_changed(world.finetune, "--model", "run"), "--dry-run"],
        ]
    command = random.choice(commands)
    return Case(command, json_output=command[0] == "evaluate", out="run" if command[0] != "evaluate" else None)


def shards(random: Random, world: World, folder: Path) -> Case:
    """Prepared text with a damaged file, prepared once more."""
    shutil.copytree(world.shards, folder / "out")
    _damage(random, random.choice([path for path in sorted((folder / "out").iterdir()) if path.is_file()]))
    tokenizer = ["--tokenizer", str(world.runs["pretrain"])]
    return Case(["prepare", str(world.text), "--lines", *tokenizer, "--out", "out", "--quiet"], out="out")


def _kept(path: Path) -> bool:
    return any(path.match(name) for name in RECORDS)


def _changed(arguments: list[str], option: str, value: str) -> list[str]:
    place = arguments.index(option) + 1
    return [*arguments[:place], value, *arguments[place + 1 :]]


def _examples(world: World, folder: Path, kind: str) -> Path:
    path = folder / "examples.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in records(kind)), encoding="utf-8")
    return path


def _damage(random: Random, path: Path) -> None:
    """Damage a file as its format allows: values changed, keys dropped, sizes that lie, lines cut, bytes flipped."""
    if not path.exists():
        return
    content = path.read_bytes()
    as_bytes = partial(damaged_bytes, random, content)
    ways: dict[str, Callable[[], bytes]] = {
        ".json": lambda: json_bytes(random, damaged(random, json.loads(content))),
        ".jsonl": lambda: _lines(random, content),
        ".toml": lambda: toml(random, tomllib.loads(content.decode())),
        ".safetensors": lambda: _tensors(random, content),
    }
    path.write_bytes(as_bytes() if random.random() < 0.15 else ways.get(path.suffix, as_bytes)())
    if random.random() < 0.03:
        path.unlink()


def _lines(random: Random, content: bytes) -> bytes:
    """JSON lines of which one is damaged."""
    lines = content.splitlines()
    place = random.randrange(len(lines))
    lines[place] = json_bytes(random, damaged(random, json.loads(lines[place])))
    return b"\n".join(lines) + b"\n"


def toml(random: Random, values: Any) -> bytes:
    """Values as TOML, some of them changed."""
    try:
        text = tomli_w.dumps(damaged(random, values))
    except (TypeError, AttributeError, ValueError):  # TOML has no null, and no surrogates
        text = tomli_w.dumps(values)
    text = damaged_text(random, text) if random.random() < 0.5 else text
    text = text.replace('"@nested@"', "[" * 3000 + "]" * 3000)
    return text.encode("utf-8", "surrogatepass")


def _parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of safetensors."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def _tensors(random: Random, content: bytes) -> bytes:
    """Safetensors with a damaged header or with values that are no numbers."""
    header, data = _parts(content)
    chance = random.random()
    if chance < 0.25:
        values = np.frombuffer(data[: len(data) // 4 * 4], dtype="<f4").copy()
        some = slice(None) if random.random() < 0.2 else random.randrange(len(values))
        values[some] = random.choice([np.nan, np.inf, -np.inf, 1e38, 0.0])
        data = values.tobytes()
    elif chance < 0.4:
        name = random.choice(list(header))
        header |= {
            name: header[name]
            | {"dtype": random.choice(["F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "C64", "X"])}
        }
    else:
        header = damaged(random, header)
    text = json_bytes(random, header)
    length = len(text) if random.random() < 0.95 else random.choice([0, 2**63, len(text) * 2, 100_000_001])
    return struct.pack("<Q", length) + text + data


DIRECTORIES: dict[str, Generator] = {
    **{name: partial(model, name=name) for name in PIECES}, "index": sharded, "run": run, "shards": shards,
}  # fmt: skip
