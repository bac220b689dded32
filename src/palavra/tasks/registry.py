"""The kinds of task, one file each, and the one table of them."""

from typing import Any

from palavra.tasks.multiple_choice.task import MultipleChoice
from palavra.tasks.question_answering.task import QuestionAnswering
from palavra.tasks.regression.task import Regression
from palavra.tasks.sequence_classification.task import SequenceClassification
from palavra.tasks.spec import KindName
from palavra.tasks.task import Task
from palavra.tasks.token_classification.task import TokenClassification

KINDS: dict[KindName, type[Task[Any]]] = {
    "classification": SequenceClassification,
    "regression": Regression,
    "token-classification": TokenClassification,
    "question-answering": QuestionAnswering,
    "multiple-choice": MultipleChoice,
}
