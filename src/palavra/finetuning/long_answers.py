"""What is not read or taught of long answers, as lines for the log."""

from collections.abc import Iterator

import numpy as np

from palavra.tasks.encoded_examples import EncodedExamples
from palavra.tasks.task import AnyTask


def of_long_answers(task: AnyTask, kind: str, encoded: EncodedExamples, context: int) -> Iterator[str]:
    """Yield a line for each limit that answers of the `kind` of examples exceed, with their number."""
    if task.spec.kind != "question-answering" or encoded.unseen is None:
        return
    name = task.spec.name
    if encoded.unseen.any():
        how = "are left out of training" if kind == "training" else "cannot be found"
        yield (
            f"{name}: {kind} questions that {how}, because no window of {context} tokens holds their whole answer: "
            f"{encoded.unseen.sum():,}"
        )
    most = task.spec.question_answering.max_answer_length
    long = encoded.example[np.diff(encoded.labels, axis=1)[:, 0] >= most]
    if len(long):
        yield (
            f"{name}: {kind} questions with an answer of more than {most} tokens, the most that a prediction has "
            f"(question_answering.max_answer_length): {len(np.unique(long)):,}"
        )
