"""The heads that `transformers` puts on encoders: a hidden layer on the first token, none on every token."""

from palavra.model.config import HeadActivation, HeadConfig, ModelConfig
from palavra.model.families.family import Form, TaskFormat, Values
from palavra.model.families.parsing import number


def encoder_task_format(
    prefix: str, *, hidden: str, activation: HeadActivation = "tanh",
    of_texts: tuple[str, str] | None = None, dropout: str = "classifier_dropout",
    forms: tuple[Form, ...] = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice"),
) -> TaskFormat:  # fmt: skip
    """Return the format of a family whose classes start with `prefix`. `hidden`: name of the hidden layer;
    `of_texts`: those of the hidden and the output layer in the class for texts, if they are others; `dropout`: the
    entry of `config.json` for the dropout of the head, which is the body's where it is null, as in most directories."""

    def own(config: ModelConfig, form: Form) -> HeadConfig:
        pooled = form in ("SequenceClassification", "MultipleChoice")
        hidden_sizes = (config.hidden_size,) if pooled else ()
        return HeadConfig(pooling="cls", hidden_sizes=hidden_sizes, activation=activation, norm="off", bias=True)

    def keys(form: Form) -> dict[str, str]:
        output = "qa_outputs" if form == "QuestionAnswering" else "classifier"
        layer, output = of_texts if form == "SequenceClassification" and of_texts else (hidden, output)
        return {"layers.0.dense": layer, "output": output}

    def read(values: Values) -> HeadConfig:
        key = "hidden_dropout_prob" if values.get(dropout) is None else dropout
        return HeadConfig(dropout=number(values, key, float, 0.1))

    return TaskFormat(
        prefix=prefix, own=own, poolings=("cls",), keys=keys, config=lambda head: {dropout: head.dropout}, read=read,
        forms=forms,
    )  # fmt: skip
