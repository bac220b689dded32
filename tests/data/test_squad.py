"""Questions and passages: SQuAD's JSON and flat records; an answer is where it is said to be, or an error."""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palavra.data.squad import Answer, Question, read_questions
from palavra.errors import PalavraError

CONTEXT = "😀 A Ana mora\r\nem Évora; a Ana ri."


def squad(*asked: dict[str, Any], context: str = CONTEXT) -> str:
    paragraphs = [{"context": context, "qas": [{"id": "q", "question": "Quem?", **each} for each in asked]}]
    return json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}, ensure_ascii=False)


def written(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


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


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"text": "Ana", "answer_start": 5}, "the answer 'Ana' is not at character 5 of the context; counts UTF-16"),
        ({"text": "Ana", "answer_start": 6}, "the answer 'Ana' is not at character 6 of the context; it is at 4"),
        ({"text": "Ana", "answer_start": -1}, "the answer 'Ana' is not at character -1"),
        ({"text": "Ana", "answer_start": 10**30}, "the answer 'Ana' is not at character 1000"),
        ({"text": "Eva", "answer_start": 4}, "the answer 'Eva' is nowhere in the context; copy it from there"),
        ({"text": "Eva"}, "the answer 'Eva' is nowhere in the context"),
        ({"text": "", "answer_start": 0}, "an answer is empty; a question without one has no answers at all"),
        ({"text": 3, "answer_start": 0}, "an answer is a JSON number, not text"),
        ({"text": "Ana", "answer_start": "x"}, "answer_start is 'x', not a whole number"),
        ({"text": "Ana", "answer_start": 4.5}, "answer_start is '4.5', not a whole number"),
    ],
)
def test_answers_that_are_elsewhere(answer: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", squad({"answers": [answer]}))
    message = message.replace("; counts", "; answer_start counts")
    assert f"{path}:data[0].paragraphs[0].qas[0]: question 'q': {message}" in wrong(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", ":data: missing; SQuAD's JSON is data[].paragraphs[].qas[]"),
        ('{"data": {}}', ":data: a JSON object, not a list"),
        ('{"data": [{}]}', ":data[0].paragraphs: missing"),
        ('{"data": [3]}', ":data[0]: a JSON number, not an object"),
        ('{"data": [{"paragraphs": [{"qas": []}]}]}', ":data[0].paragraphs[0]: 'context' is missing"),
        ('{"data": [\n}', ":2: not valid JSON ("),
        ('{"data": []}', ": holds no questions"),
        (squad({}), ":data[0].paragraphs[0].qas[0]: 'answers' is missing"),
        (squad({"answers": [{"answer_start": 1}]}), ".qas[0]: an answer without 'text'"),
        (squad({"answers": [], "id": None}), ".qas[0]: 'id' is a JSON null, not text"),
        (squad({"answers": [], "question": " "}), ".qas[0]: 'question' is empty"),
        (squad({"answers": [{"text": "Ana"}], "is_impossible": True}), ".qas[0]: is_impossible is true, but there are"),
        (squad({"answers": []}, {"answers": []}), ".qas[1]: the id 'q' is also at"),
        ("[]", ": holds no questions"),
        ("", ":1: a list of objects"),
        ('[{"id": "1", "question": "Q", "context": "c"}]', ":1: no column 'answers'; there are: 'id'"),
        ('[\n{"id": "1", "context": "c", "answer": "c"}]', ":2: no column 'question'; there are: 'id'"),
        ('[{"id": "", "question": "Q", "context": "c", "answer": "c"}]', ":1: 'id' is empty"),
        ('[{"id": 1, "question": "Q", "context": "c", "answers": 3}]', ":1: the answers are a JSON number, not a list"),
        ('[{"answers": [], "question": "Q"}]', ":1: no column 'context'; there are: 'answers', 'question'; name the"),
        (
            '[{"question": "Q", "context": "a", "answers": {"text": ["a"], "answer_start": []}}]',
            ":1: 1 texts of answers, but not as many answer_start",
        ),
    ],
)
def test_files_that_are_none(content: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", content)
    found = wrong(path)
    assert found.startswith(path)
    assert message in found


def test_records_without_an_id_are_called_by_their_place(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"question": "Q", "context": "c", "answer": "c"}\n' * 2)
    assert [question.id for question in read_questions(path)] == [f"{path}:1", f"{path}:2"]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), st.data())
def test_every_answer_is_found_where_it_is(
    tmp_path_factory: pytest.TempPathFactory, context: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(context) - 1))
    end = data.draw(st.integers(start + 1, len(context)))
    if not context[start:end].strip():
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
