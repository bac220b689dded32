"""A generator of outputs that are somebody's files: nothing that was there before may change."""

import os
from pathlib import Path
from random import Random

from fuzz.case import Case, Generator
from fuzz.crash import commands
from fuzz.world import World

# Names that runs give to their own files, without those by which a run of an earlier version is known.
NAMES = [
    "config.json", "tokenizer.json", "model.safetensors", "run.json", "report.html", "train.log", ".lock", "notes.txt",
    "data/train-00000.arrow", "data/manifest.json", "checkpoints/step-1/weights.safetensors", "checkpoints/mine.txt",
    "trial-0/mine.txt", "seed-0/mine.txt", "seed-0/model.safetensors", "metrics.jsonl", "palavra.toml",
    ".dropped/mine.txt", "data/unfinished.json", "evaluation.json",
]  # fmt: skip


def foreign(random: Random, world: World, folder: Path) -> Case:
    """A command that writes into a folder with files that are not its own, or links to some."""
    command = commands(world)[
        random.choice(["pretrain", "finetune", "seeds", "sweep", "learning-curve", "prepare", "tokenizer"])
    ]
    kept = folder / "kept"
    kept.mkdir()
    for name in random.sample(NAMES, random.choice([1, 1, 3])):
        path = folder / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (kept / path.name).write_text('{"mine": true}\n', encoding="utf-8")
        if random.random() < 0.4:
            path.symlink_to(kept / path.name)
        else:
            path.write_text('{"mine": true}\n', encoding="utf-8")
    return Case(command.arguments, out="out", keeps=True)


def inputs(random: Random, world: World, folder: Path) -> Case:
    """A command whose output is one of its inputs, under any of its names."""
    (folder / "mine.jsonl").write_text('{"text": "o gato", "label": "fresh"}\n', encoding="utf-8")
    name = random.choice(["mine.jsonl", "./mine.jsonl", "link.jsonl", "hard.jsonl", f"../{folder.name}/mine.jsonl"])
    (folder / "link.jsonl").symlink_to("mine.jsonl")
    os.link(folder / "mine.jsonl", folder / "hard.jsonl")
    model = str(world.runs["finetune"])
    arguments = random.choice(
        [
            ["embed", str(world.pretrained["bert"]), "--file", "mine.jsonl", "--out", name],
            ["evaluate", model, "mine.jsonl", "--predictions", name],
            ["evaluate", model, name, "--predictions", "mine.jsonl"],
        ]
    )
    return Case(arguments, keeps=True)


OUTPUTS: dict[str, Generator] = {"foreign": foreign, "inputs": inputs}
