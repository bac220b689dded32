"""Registry of the kinds of task, one package each."""

from palavra.tasks.multiple_choice import task as multiple_choice
from palavra.tasks.question_answering import task as question_answering
from palavra.tasks.regression import task as regression
from palavra.tasks.sequence_classification import task as sequence_classification
from palavra.tasks.spec import KindName
from palavra.tasks.task import Kind
from palavra.tasks.token_classification import task as token_classification

KINDS: dict[KindName, Kind] = {
    "classification": sequence_classification.KIND,
    "regression": regression.KIND,
    "token-classification": token_classification.KIND,
    "question-answering": question_answering.KIND,
    "multiple-choice": multiple_choice.KIND,
}
