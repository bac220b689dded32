"""From the records of a run to `report.html`: one self-contained page, without network or script."""

import re
from importlib.resources import files
from os import PathLike
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined

from palavra.errors import PalavraError
from palavra.files import path_of
from palavra.output import folder_kind, output_file
from palavra.report import formatting, metrics, parts
from palavra.report.finetuning import finetuning_page
from palavra.report.pretraining import pretraining_page
from palavra.report.records import FinetuningRecords, PretrainingRecords, read_records
from palavra.report.summaries import learning_curve_picture

# What templates write numbers and names with.
FILTERS = (
    formatting.count, formatting.duration, formatting.loss, formatting.percent, formatting.perplexity,
    formatting.visible, metrics.decimal, metrics.metric_name, metrics.place_name, metrics.split_title, metrics.written,
    metrics.between, parts.facts, parts.label,
)  # fmt: skip
SHOWN_EVENTS = 200


def write_report(run_directory: str | PathLike[str]) -> Path:
    """Write `report.html` into a run's directory and return its path; the same run gives the same bytes.

    Raises:
        PalavraError: the directory is not a run, or cannot be written.
    """
    folder = path_of(run_directory, "the path of the run")
    path, records = folder / "report.html", read_records(folder)
    if path.is_file() and folder_kind(folder) != "run" and not _is_report(path):
        raise PalavraError(f"{path} is no report of Palavra: move it away to have one there")
    with output_file(path) as temporary:
        temporary.write_bytes(render(records).encode("utf-8"))
    return path


def _is_report(path: Path) -> bool:
    with path.open("rb") as file:
        return b" Palavra report</title>" in file.read(4096)


def render(records: PretrainingRecords | FinetuningRecords) -> str:
    """Return the page's HTML. Text from the run is escaped; characters that HTML forbids become U+FFFD."""
    # Made here, not at import: a template is read once a report.
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda name: files("palavra.report").joinpath(name).read_text(encoding="utf-8")),
    )
    environment.filters |= {form.__name__: form for form in FILTERS}
    environment.globals["absent"] = formatting.ABSENT
    if isinstance(records, FinetuningRecords):
        page, content = "finetuning.html", finetuning_page(records)
    else:
        page, content = "pretraining.html", pretraining_page(records)
    run = records.run
    html = environment.get_template(page).render(
        **vars(records) | content,
        version=(run.environment.get("palavra") if run else None) or "",
        shown_events=records.events[-SHOWN_EVENTS:],
        done=parts.progress(run, records.train),
        notices=parts.notices(records.absent, run),
        curve=learning_curve_picture(records.learning_curve),
    )
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", html)
