"""From the records of a run to `report.html`: one self-contained page, without network or script."""

import re
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, FunctionLoader, StrictUndefined

from palavra.files import atomic_write_text
from palavra.report.finetuning import finetuning_page
from palavra.report.formatting import count, plain
from palavra.report.pretraining import pretraining_page
from palavra.report.records import Records, read_records


def write_report(run_directory: Path) -> Path:
    """Write `report.html` into a run's directory and return its path; the same run gives the same bytes.

    Raises:
        PalavraError: the directory is not a run.
    """
    page = render(read_records(run_directory))
    path = run_directory / "report.html"
    atomic_write_text(path, page)
    return path


def render(records: Records) -> str:
    """The page's HTML. Text from the run is escaped; characters that HTML forbids become U+FFFD."""
    # Made here, not at import: a template is read once a report.
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_template),
    )
    page, content = (
        ("finetuning.html", finetuning_page) if is_finetuning(records) else ("pretraining.html", pretraining_page)
    )
    html = environment.get_template(page).render(
        name=records.name,
        version=plain(records.run["palavra"]) if records.run.get("palavra") else "",
        recipe=records.recipe,
        events=[(count(event.get("step")), plain(event.get("message"))) for event in records.events[-200:]],
        **content(records),
    )
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", html)


def is_finetuning(records: Records) -> bool:
    """Whether a run learned tasks, which run.json says or, where there is none, what other records there are."""
    if records.run:
        return records.run.get("run") == "fine-tuning"
    evaluated = records.evaluation.get("tasks") or records.evaluation.get("runs")
    return bool(evaluated or records.sweep or records.learning_curve)


def _template(name: str) -> str:
    return files("palavra.report").joinpath(name).read_text(encoding="utf-8")
