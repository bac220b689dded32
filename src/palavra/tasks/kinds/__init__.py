"""The kinds of task, one file each, and the one table of them."""

from typing import Any

from palavra.tasks.kinds.choice import MultipleChoice
from palavra.tasks.kinds.classification import Classification
from palavra.tasks.kinds.labelling import Labelling
from palavra.tasks.kinds.qa import QuestionAnswering
from palavra.tasks.kinds.regression import Regression
from palavra.tasks.spec import KindName
from palavra.tasks.task import Task

KINDS: dict[KindName, type[Task[Any]]] = {
    "classification": Classification,
    "pairs": Classification,
    "regression": Regression,
    "labelling": Labelling,
    "qa": QuestionAnswering,
    "choice": MultipleChoice,
}
