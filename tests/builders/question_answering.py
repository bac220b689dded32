"""A few questions on short passages, and tokenizers for them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import transformers

from builders.tasks import TEXTS, trained
from palavra.data.squad import Answer, Question
from palavra.tasks.encoded_examples import offsets_of
from palavra.tasks.question_answering.encoding import STRIDE, EncodedQuestions, QuestionEncoder
from palavra.tasks.spec import QuestionAnsweringOptions, TaskSpec

transformers.utils.logging.set_verbosity_error()


WORDPIECE = trained()


def spec(**options: Any) -> TaskSpec:
    return TaskSpec(kind="question-answering", question_answering=QuestionAnsweringOptions(**options))


def ask(question: str, context: str, *answers: str) -> Question:
    found = tuple(Answer(answer, context.index(answer)) for answer in answers)
    return Question(id=question, question=question, context=context, answers=found, where="t.json:1")


QUESTIONS = [
    ask("when was the harbour built?", TEXTS[0], "1834", "in 1834", "1834"),
    ask("what was built in 1834?", TEXTS[0], "The old harbour".lower()),
    ask("what stands beside the harbour?", TEXTS[0], "lighthouse"),
    ask("who ran?", TEXTS[1], "um gato"),
    ask("who did not see it?", TEXTS[1], "menina"),
    ask("who sold a boat?", TEXTS[2], "maria"),
    ask("what did it cost?", TEXTS[2], "300 coins"),
    ask("who is john's sister?", TEXTS[2]),
]


def encode(questions: Sequence[Question], context: int = 64, **options: Any) -> EncodedQuestions:
    encoder = QuestionEncoder(stride=spec(**options).question_answering.stride or STRIDE)
    return encoder.encode(questions, WORDPIECE, context, True)


def random_scores(encoded: EncodedQuestions, seed: int) -> tuple[npt.NDArray[np.float32]]:
    return (np.random.default_rng(seed).normal(0, 3, (len(encoded.rows), 2)).astype(np.float32),)


def refusing_scores(encoded: EncodedQuestions, seed: int) -> tuple[npt.NDArray[np.float32]]:
    """Scores that are right more often than not, for answers and for none."""
    (scores,) = random_scores(encoded, seed)
    first = offsets_of(encoded.row_counts)[:-1]
    for window in range(encoded.sequences):
        scores[first[window] + encoded.labels[window], [0, 1]] += 6
    return (scores,)
