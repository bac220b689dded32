"""Questions and passages: SQuAD's JSON and flat records; an answer is where it is said to be, or an error."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from builders.labelled_files import CONTEXT, squad, written
from hypothesis import given
from hypothesis import strategies as st

from palavra.data.characters import is_blank
from palavra.data.squad import Answer, Question, read_questions
from palavra.errors import PalavraError


def answers(path: str) -> list[tuple[Answer, ...]]:
    return [question.answers for question in read_questions(path)]


def wrong(path: str) -> str:
    with pytest.raises(PalavraError) as caught:
        list(read_questions(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_squad(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = [
        {"answers": [{"text": "Ana", "answer_start": 4}, {"text": "Ana", "answer_start": 26}]},
        {"id": "r", "answers": [], "is_impossible": True, "plausible_answers": [{"text": "x", "answer_start": 0}]},
        {"id": "s", "answers": [{"text": "Ana"}], "is_impossible": False},
    ]
    path = written(tmp_path / "a.json", "\ufeff" + squad(*asked))
    first, second, third = read_questions(path)
    assert first == Question(
        id="q",
        question="Quem?",
        context=CONTEXT,
        answers=(Answer("Ana", 4), Answer("Ana", 26)),
        where=f"{path}:data[0].paragraphs[0].qas[0]",
    )
    assert second.answers == ()
    assert third.answers == (Answer("Ana", 4),)
    assert answers(written(tmp_path / "b.json.gz", gzip.compress(squad(*asked).encode()))) == answers(path)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"answers": {"text": ["Ana"], "answer_start": [26]}}, [26]),
        ({"answers": {"text": [], "answer_start": []}}, []),
        ({"answers": [{"text": "Ana", "answer_start": 26}, {"text": "mora"}]}, [26, 8]),
        ({"answers": {"text": "Ana", "answer_start": 26}}, [26]),
        ({"answers": ["Ana", "ri"]}, [4, 30]),
        ({"answers": None}, []),
        ({"answer": "Ana"}, [4]),
        ({"answer": "Ana", "answer_start": 26}, [26]),
        ({"answer": "Ana", "answer_start": 26.0}, [26]),
        ({"answer": ""}, []),
    ],
)
def test_records(given: dict[str, Any], expected: list[int], tmp_path: Path) -> None:
    row = {"id": 7, "question": "Quem?", "context": CONTEXT, **given}
    line = written(tmp_path / "a.jsonl", json.dumps(row) + "\n")
    (question,) = read_questions(line)
    assert (question.id, question.where) == ("7", f"{line}:1")
    assert [answer.start for answer in question.answers] == expected
    assert answers(written(tmp_path / "a.json", json.dumps([row]))) == [question.answers]


def test_a_table(tmp_path: Path) -> None:
    table = io.StringIO()
    rows = [
        ["1", "Quem?", 'A "Ana";\nri', "Ana", "3.0"],
        ["2", "Onde?", "A Ana ri", "", ""],
        ["3", "Q", "a b", "b", " "],
    ]
    csv.writer(table, delimiter=";").writerows([["id", "question", "context", "answer", "answer_start"], *rows])
    path = written(tmp_path / "a.csv", table.getvalue())
    assert answers(path) == [(Answer("Ana", 3),), (), (Answer("b", 2),)]


def test_records_without_an_id_are_called_by_their_place(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"question": "Q", "context": "c", "answer": "c"}\n' * 2)
    assert [question.id for question in read_questions(path)] == [f"{path}:1", f"{path}:2"]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), st.data())
def test_every_answer_is_found_where_it_is(
    tmp_path_factory: pytest.TempPathFactory, context: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(start + 1, len(context)))
    if not context[start:end].strip() or is_blank(context):
        return
    answer = {"text": context[start:end], "answer_start": start}
    path = written(tmp_path_factory.mktemp("squad") / "a.json", squad({"answers": [answer]}, context=context))
    assert answers(path) == [(Answer(context[start:end], start),)]


def test_columns_of_other_names(tmp_path: Path) -> None:
    path = tmp_path / "perguntas.csv"
    path.write_text("id;pergunta;texto;resposta\n1;Quem?;Foi o gato.;gato\n", encoding="utf-8")
    columns = {"question": "pergunta", "context": "texto", "answers": "resposta"}
    (found,) = read_questions(str(path), columns=columns)
    assert (found.question, found.context, found.answers) == ("Quem?", "Foi o gato.", (Answer("gato", 6),))
