"""Multiple choice: select the choice that fits a text (Devlin et al. 2019, section 4.4)."""

from collections.abc import Mapping, Sequence
from typing import Any

from palavra.errors import PalavraError
from palavra.tasks.multiple_choice.encoding import ChoiceEncoder
from palavra.tasks.multiple_choice.examples import ChoiceExample, reader
from palavra.tasks.multiple_choice.output import ChoiceOutput
from palavra.tasks.multiple_choice.scores import ChoiceScorer
from palavra.tasks.spec import TaskSpec
from palavra.tasks.task import AnyTask, Kind, Task
from palavra.tasks.temperature_scaling import temperature_fit


def fit(spec: TaskSpec, examples: Sequence[ChoiceExample], trained: Sequence[ChoiceExample]) -> AnyTask:
    """Check the examples and build the task."""
    del trained
    if not examples:
        raise PalavraError(f"{spec.source} has no examples: it needs a line for each")
    task = from_json(spec, {})
    task.encoder.check(examples)
    return task


def from_json(spec: TaskSpec, values: Mapping[str, Any]) -> AnyTask:
    """Rebuild the task from the values of `to_json`."""
    read = reader(spec)
    return Task(
        spec=spec,
        reader=read,
        encoder=ChoiceEncoder(),
        output=ChoiceOutput(temperature=float(values.get("temperature", 1.0))),
        scorer=ChoiceScorer(),
        calibrate=temperature_fit(read),
    )


KIND = Kind(reader=reader, fit=fit, from_json=from_json)
