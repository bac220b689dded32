"""The command line: parse, call one function, print. Results go to stdout, everything else to stderr."""

from palavra.cli import evaluation, finetuning, inference, options, pretraining
from palavra.cli.app import app, main

__all__ = ["app", "evaluation", "finetuning", "inference", "main", "options", "pretraining"]

# The help lists commands in the order of a model's life.
_ORDER = (
    "prepare", "pretrain", "finetune", "sweep", "evaluate", "fill", "generate", "score", "compare_pairs", "embed",
    "predict", "report", "list_options", "demo",
)  # fmt: skip
app.registered_commands.sort(key=lambda command: _ORDER.index(command.callback.__name__ if command.callback else ""))
