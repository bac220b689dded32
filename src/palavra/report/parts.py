"""What pages are made of, whatever the run: facts, tables, pictures and notices."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from palavra.report import charts
from palavra.report.charts import Series
from palavra.report.formatting import percent, plain, size
from palavra.report.records import Run
from palavra.report.svg import placed
from palavra.run_records.training import MetricLine, Scalar

Format = Callable[[object], str]
FAMILIES = {
    "modernbert": "ModernBERT", "bert": "BERT", "distilbert": "DistilBERT", "roberta": "RoBERTa",
    "xlm-roberta": "XLM-RoBERTa", "camembert": "CamemBERT", "mpnet": "MPNet", "deberta-v2": "DeBERTa",
    "electra": "ELECTRA", "eurobert": "EuroBERT", "nomic_bert": "Nomic BERT", "llama": "Llama", "mistral": "Mistral",
    "qwen2": "Qwen2", "qwen3": "Qwen3", "smollm3": "SmolLM3", "gemma3_text": "Gemma 3", "gpt2": "GPT-2",
    "gpt_neox": "GPT-NeoX", "modernbert-decoder": "ModernBERT decoder",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of cells under `columns`; rows whose number is in `chosen` stand out. `wrapped` names the columns of running
    text, by number; a `wide` table takes the page's whole width."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    chosen: frozenset[int] = frozenset()
    wrapped: frozenset[int] = frozenset()
    wide: bool = False


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture, and the name by which `captions.html` has its title and how to read it; a `title` of its own replaces
    that one, a `caption` of its own how to read it, and a `wide` picture takes the page's whole width."""

    name: str
    svg: Markup
    title: str = ""
    caption: str = ""
    wide: bool = False


def picture_at(place: str, name: str, svg: str, title: str = "", *, caption: str = "", wide: bool = False) -> Picture:
    """Return the picture at a place of the page, whose name becomes part of its ids."""
    return Picture(name=name, svg=Markup(placed(svg, place)), title=title, caption=caption, wide=wide)


def facts(record: object) -> list[tuple[str, str]]:
    """Return the key and the written value of each number, text and list of a record or mapping."""
    values = record if isinstance(record, Mapping) else vars(record)
    forms: Mapping[str, Format] = {"bytes": size, "efficiency": percent, "family": family}
    shown = {key: value for key, value in values.items() if isinstance(value, str | int | float | list | tuple)}
    return [(key, forms.get(key, plain)(value)) for key, value in shown.items() if key not in ("warnings", "shards")]


def label(key: str) -> str:
    """Return a key as people read it."""
    return key[:1].upper() + key[1:].replace("_", " ")


def family(name: object) -> str:
    """Return a model family's name as people write it."""
    return FAMILIES.get(str(name), plain(name))


def machine(environment: Mapping[str, Scalar]) -> list[str]:
    """Return where and how a run computed, for its subtitle."""
    device = f" ({plain(environment['device'])})" if environment.get("device") else ""
    processor, precision = environment.get("processor"), environment.get("precision")
    where = [f"trained on {plain(processor)}{device}"] if processor else []
    return where + ([f"in {plain(precision)}"] if precision else [])


def progress(run: Run | None, lines: Sequence[MetricLine]) -> Mapping[str, float | None]:
    """Return `steps`, `tokens`, `seconds` and `tokens_per_second` of a run, of an unfinished one those of its last
    line."""
    if run and run.training:
        return vars(run.training)
    return {"steps": lines[-1].step, **lines[-1].values} if lines else {}


def notices(absent: Sequence[str], run: Run | None) -> list[str]:
    """Return what to know before reading: what is missing of the records, and why training stopped."""
    absent = [*absent, *["run.json has no summary of the training"] * bool(run and not run.training)]
    found = []
    if absent:
        found.append(f"Records are missing, as in a run that is unfinished or was interrupted: {'; '.join(absent)}.")
    if run and run.training and run.training.stopped:
        found.append(f"Training stopped early: {run.training.stopped}")
    return found


def optimizer_pictures(train: Sequence[MetricLine]) -> dict[str, Picture]:
    """Return the learning rate and the gradient norm along training."""
    rate, norm = Series.of(train, "learning_rate"), Series.of(train, "gradient_norm")
    found = {"rate": picture_at("run", "rate", charts.learning_rate(rate))} if len(rate) else {}
    return found | ({"gradient": picture_at("run", "gradient", charts.gradient_norm(norm))} if len(norm) else {})
