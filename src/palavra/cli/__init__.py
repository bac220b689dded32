"""The command line: parse, call one function, print. Results go to stdout, everything else to stderr."""

from typer.models import CommandInfo

from palavra.cli import evaluation, finetuning, inference, learning_curve, options, pretraining
from palavra.cli.app import app, main, tokenizer_app
from palavra.cli.paths import PathsGiven

__all__ = [
    "FUNCTIONS",
    "app",
    "evaluation",
    "finetuning",
    "inference",
    "learning_curve",
    "main",
    "options",
    "pretraining",
]

# The Python function of each command, in the order of the help.
FUNCTIONS = {
    "prepare": "palavra.prepare",
    "pretrain": "palavra.pretrain",
    "finetune": "palavra.finetune",
    "sweep": "palavra.sweep",
    "learning-curve": "palavra.learning_curve",
    "evaluate": "palavra.evaluate",
    "fill": "palavra.inference.masked.MaskedModel.fill",
    "generate": "palavra.inference.causal.CausalModel.generate",
    "score": "palavra.inference.masked.MaskedModel.score",
    "compare-pairs": "palavra.compare_pairs",
    "follows": "palavra.inference.masked.MaskedModel.follows",
    "embed": "palavra.inference.masked.MaskedModel.embed",
    "predict": "palavra.inference.finetuned.FineTunedModel.predict",
    "report": "palavra.write_report",
    "options": "palavra.options",
    "demo": "palavra.demo.run_demo",
    "tokenizer train": "palavra.tokenizer_train",
}


def _place(command: CommandInfo) -> int:
    called = command.callback.__name__ if command.callback else ""
    return list(FUNCTIONS).index(command.name or called.replace("_", "-"))


app.registered_commands.sort(key=_place)
for _command in [*app.registered_commands, *tokenizer_app.registered_commands]:
    _command.cls = PathsGiven
