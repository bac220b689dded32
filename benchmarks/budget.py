"""What each size reaches in a given time, and which one the budget rule picks.

    python benchmarks/budget.py TEXT... --minutes 1 3 --sizes nano micro mini

Trains every size for every number of minutes on the same text, on this machine, one after the other, and prints
a table of held-out loss and masked accuracy. `--set` passes recipe fields on. Run it on a machine that does
nothing else.
"""

import argparse
import tempfile
from pathlib import Path

import torch

import palavra
from palavra.run.describe import processor_name
from palavra.run.directory import RunDirectory


def measure(text: list[str], minutes: float, size: str, options: argparse.Namespace, folder: Path) -> str:
    """Train once; a row of the table."""
    torch.set_num_threads(options.threads)
    out = folder / f"{size}-{minutes:g}"
    finished = palavra.pretrain(
        *text, out=out, minutes=minutes, size=size, vocab_size=options.vocab_size, column=options.column,
        set=[f"train.threads={options.threads}", *options.set],
    )  # fmt: skip
    found = finished.evaluation
    assert found is not None
    model = RunDirectory(out).read_json("run.json")["model"]
    return (
        f"| {minutes:g} | {size} | {model['parameters_without_embeddings']:,} | {finished.steps:,} | "
        f"{finished.tokens:,} | {finished.tokens / finished.seconds:,.0f} | {found.loss:.3f} | {found.accuracy:.1%} |"
    )


def main() -> None:
    """Read the options, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="+")
    parser.add_argument("--minutes", nargs="+", type=float, default=[1.0, 3.0])
    parser.add_argument("--sizes", nargs="+", default=["nano", "micro", "mini"])
    parser.add_argument("--vocab-size", type=int, default=None)
    parser.add_argument("--column", default=None)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--set", nargs="*", default=[])
    options = parser.parse_args()
    print(f"{processor_name()}, {options.threads} threads, torch {torch.__version__}; {' '.join(options.set)}\n")
    print("| minutes | size | parameters | steps | tokens | tokens/s | held-out loss | masked accuracy |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for minutes in options.minutes:
            for size in options.sizes:
                print(measure(options.text, minutes, size, options, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
