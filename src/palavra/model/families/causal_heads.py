"""The heads that `transformers` puts on causal families: one linear layer on the last token, or on every token."""

from collections.abc import Mapping

from palavra.model.config import HeadConfig
from palavra.model.families.family import Form, TaskFormat, Values
from palavra.model.families.parsing import number

PLAIN = HeadConfig(pooling="lasttoken", hidden_sizes=(), activation="relu", norm="off", bias=True)


def causal_task_format(
    prefix: str, *, forms: tuple[Form, ...] = ("SequenceClassification", "TokenClassification", "QuestionAnswering"),
    token_output: str = "score", question_answering_body: str | None = None, dropout: str | None = None,
    default_dropout: float = 0.1,
) -> TaskFormat:  # fmt: skip
    """Return the format of a family whose classes start with `prefix`. `token_output`: name of the layer that
    classifies tokens; `question_answering_body`: name of the body in that class, if it is another; `dropout`: the
    entry of `config.json` for the dropout of the head, if it has one."""
    outputs: dict[Form, str] = {
        "SequenceClassification": "score",
        "TokenClassification": token_output,
        "QuestionAnswering": "qa_outputs",
    }
    bodies: Mapping[Form, str] = {"QuestionAnswering": question_answering_body} if question_answering_body else {}

    def read(values: Values) -> HeadConfig:
        known = dropout is not None and values.get(dropout) is not None
        return HeadConfig(dropout=number(values, str(dropout), float) if known else default_dropout)

    return TaskFormat(
        prefix=prefix,
        own=lambda config, form: PLAIN,
        poolings=("lasttoken",),
        keys=lambda form: {"output": outputs[form]} if form in outputs else {},
        config=lambda head: {} if dropout is None else {dropout: head.dropout},
        read=read,
        forms=forms,
        unbiased=("SequenceClassification",),
        bodies=bodies,
    )
