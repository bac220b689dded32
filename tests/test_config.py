import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from palavra.config import from_mapping, from_toml, override, to_toml
from palavra.errors import PalavraError
from palavra.option import declared


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    name: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float | None = 1.0


@dataclass(frozen=True, kw_only=True)
class Train:
    steps: int | None = None
    minutes: float | None = 3.0
    compile: bool = True
    precision: Literal["auto", 16, 32] = "auto"
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(learning_rate=3e-3, clip=None))

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be 1 or more, not {self.steps}")


@dataclass(frozen=True, kw_only=True)
class Data:
    sources: tuple[str, ...] = ()
    column: str = "text"
    note: str | None = None
    shard_tokens: int | str = "auto"
    lengths: tuple[int | None, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Recipe:
    seed: int = 0
    data: Data = Data()
    train: Train | None = Train()
    extra: Optimizer | None = None


text = st.text()
not_none = text.filter(lambda value: value != "none")
number = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-(2**63) + 1, 2**63 - 1)
optimizers = st.builds(
    Optimizer,
    name=st.sampled_from(["adamw", "muon"]),
    learning_rate=number,
    betas=st.tuples(number, number),
    clip=st.none() | number,
)
trains = st.builds(
    Train,
    steps=st.none() | st.integers(1, 2**63 - 1),
    minutes=st.none() | number,
    compile=st.booleans(),
    precision=st.sampled_from(["auto", 16, 32]),
    optimizer=optimizers,
)
datas = st.builds(
    Data,
    sources=st.lists(text).map(tuple),
    column=text,
    note=st.none() | not_none,
    shard_tokens=whole | text,
    lengths=st.lists(st.none() | whole).map(tuple),
)
recipes = st.builds(Recipe, seed=whole, data=datas, train=st.none() | trains, extra=st.none() | optimizers)


@given(recipe=recipes)
def test_written_and_read_is_the_same(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "recipe.toml"
    path.write_bytes(to_toml(recipe).encode())
    assert from_toml(Recipe, path) == recipe


def typed(value: Any) -> str:
    """A value as a person types it after `key=`."""
    if isinstance(value, tuple):
        items = ["none" if item is None else item for item in value]
        return tomli_w.dumps({"value": items}).removeprefix("value = ")
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def leaves(config: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Every field that holds no table, with its dotted key."""
    found = []
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        inside = leaves(value, f"{prefix}{entry.name}.") if dataclasses.is_dataclass(value) else None
        found.extend(inside if inside is not None else [(prefix + entry.name, value)])
    return found


def replaced(config: Any, key: str, value: Any) -> Any:
    name, _, rest = key.partition(".")
    return dataclasses.replace(config, **{name: replaced(getattr(config, name), rest, value) if rest else value})


@given(base=recipes.filter(lambda r: r.train is not None), data=st.data())
def test_override_is_replace(base: Recipe, data: st.DataObject) -> None:
    donor = data.draw(st.builds(Recipe, seed=whole, data=datas, train=trains))
    changes = data.draw(st.lists(st.sampled_from(leaves(donor)), max_size=5, unique_by=lambda item: item[0]))
    expected = base
    assignments = []
    for key, value in changes:
        if key == "data.shard_tokens":  # text that reads as a number is a number there
            value = "auto" if isinstance(value, str) else value
        expected = replaced(expected, key, value)
        assignments.append(f"{key}={typed(value)}")
    assert override(base, assignments) == expected


@pytest.mark.parametrize(
    ("assignment", "key", "value"),
    [
        ("train.steps=1_000", "train.steps", 1000),
        ("train.steps=none", "train.steps", None),
        ("train.minutes=2", "train.minutes", 2.0),
        ("train.optimizer.learning_rate=1e-3", "train.optimizer.learning_rate", 1e-3),
        ("train.optimizer.betas=0.8, 0.9", "train.optimizer.betas", (0.8, 0.9)),
        ("train.optimizer.betas=[0.8, 0.9]", "train.optimizer.betas", (0.8, 0.9)),
        ("train.compile=False", "train.compile", False),
        ("train.precision=16", "train.precision", 16),
        ("train.precision=auto", "train.precision", "auto"),
        ("data.sources=a.txt,b.txt", "data.sources", ("a.txt", "b.txt")),
        ('data.sources=["a, b.txt"]', "data.sources", ("a, b.txt",)),
        ("data.sources=", "data.sources", ()),
        ("data.column=", "data.column", ""),
        ("data.note=x=y", "data.note", "x=y"),
        ("data.shard_tokens=4096", "data.shard_tokens", 4096),
        ("data.shard_tokens=auto", "data.shard_tokens", "auto"),
        ("data.lengths=1,none,3", "data.lengths", (1, None, 3)),
        ("train=none", "train", None),
    ],
)
def test_override_reads_the_type_of_the_field(assignment: str, key: str, value: Any) -> None:
    changed = override(Recipe(), [assignment])
    assert changed == replaced(Recipe(), key, value)
    found: Any = changed
    for name in key.split("."):
        found = getattr(found, name)
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("train.stesp=3", "set=\"train.stesp=3\": unknown key 'train.stesp'; the nearest is 'train.steps'"),
        ("steps=3", "set=\"steps=3\": unknown key 'steps'; the nearest is 'train.steps'"),
        ("train.xyz=3", "unknown key 'train.xyz'; known here: train.steps, train.minutes, train.compile"),
        ("train.foo=3", "unknown key 'train.foo'; known here: train.steps"),
        ("trian.steps=3", "set=\"trian.steps=3\": unknown key 'trian'; the nearest is 'train'"),
        ("train.steps=ten", "set=\"train.steps=ten\": train.steps must be a whole number or none, not 'ten'"),
        ("train.steps=1.5", "train.steps must be a whole number or none, not '1.5'"),
        ("seed=none", "seed must be a whole number, not 'none'"),
        ("train.compile=1", "train.compile must be true or false, not '1'"),
        ("train.optimizer.name=adam", "train.optimizer.name must be one of adamw, muon, not 'adam'"),
        (
            "train.optimizer.betas=0.9",
            "train.optimizer.betas must be a list of 2 (a number, a number), not '0.9'",
        ),
        ("train.optimizer.betas=0.9,x", "train.optimizer.betas[1] must be a number, not 'x'"),
        ("data.sources=[1]", "data.sources[0] must be text, not 1"),
        ("data.sources=[oops", "data.sources must be a list of text, not '[oops'"),
        (
            "train=5",
            "train must be a table of steps, minutes, compile, precision, optimizer or none, not '5'",
        ),
        ("seed.x=5", "seed must be a whole number and has no keys under it"),
        ("train.steps=0", 'set="train.steps=0": steps must be 1 or more, not 0'),
        ("seed", "set= seed: write it as key=value"),
        ("=5", "set= =5: write it as key=value"),
        ("seed=__import__('os')", "seed must be a whole number"),
    ],
)
def test_override_says_what_is_wrong(assignment: str, message: str) -> None:
    with pytest.raises(PalavraError) as caught:
        override(Recipe(), ["data.column=body", assignment])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_are_made_together() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Range:
        low: int = 0
        high: int = 1

        def __post_init__(self) -> None:
            if self.low >= self.high:
                raise ValueError(f"low ({self.low}) must be below high ({self.high})")

    assert override(Range(), ["low=5", "high=9", "low=6"]) == Range(low=6, high=9)
    with pytest.raises(PalavraError, match=r'set="low=5" high=4: low \(5\) must be below high \(4\)'):
        override(Range(), ["low=5", "high=4"])


def test_a_table_that_was_none_starts_from_its_defaults() -> None:
    assert override(Recipe(), ["extra.name=muon"]).extra == Optimizer(name="muon")
    assert override(Recipe(train=None), ["train=none", "train.steps=3"]).train == Train(steps=3)


def test_a_partial_table_keeps_the_defaults_of_its_parent() -> None:
    recipe = from_mapping(Recipe, {"train": {"optimizer": {"name": "muon"}}})
    assert recipe.train is not None
    assert recipe.train.optimizer == Optimizer(name="muon", learning_rate=3e-3, clip=None)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (
            "seed = 1\n[train]\nsteps = 5\nstep = 6\n",
            ":4: unknown key 'train.step'; the nearest is 'train.steps'",
        ),
        (
            "[train]\n\n[train.optimizer]\nbetas = [0.1, 'x']",
            ":4: train.optimizer.betas[1] must be a number, not 'x'",
        ),
        ("[data]\ncolumn = 3", ":2: data.column must be text, not 3"),
        ("seed = true", ":1: seed must be a whole number, not True"),
        ("seed = 2.0", ":1: seed must be a whole number, not 2.0"),
        ("train.steps = 0", "steps must be 1 or more, not 0"),
        ("data = 3", ":1: data must be a table of sources, column, note, shard_tokens, lengths, not 3"),
        ("[dta]\nx = 1", ":1: unknown key 'dta'; the nearest is 'data'"),
        ("seed = = 3", ": not valid TOML: Invalid value (at line 1, column 8)"),
    ],
)
def test_a_file_error_names_file_and_line(tmp_path: Path, written: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(written)
    with pytest.raises(PalavraError) as caught:
        from_toml(Recipe, path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(PalavraError, match=r"cannot be read \(No such file"):
        from_toml(Recipe, tmp_path / "missing.toml")
    (tmp_path / "latin.toml").write_bytes("column = 'é'".encode("latin-1"))
    with pytest.raises(PalavraError, match="not UTF-8"):
        from_toml(Recipe, tmp_path / "latin.toml")


def test_a_missing_key_is_named() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Needs:
        width: int

    with pytest.raises(PalavraError, match="'width' is missing and has no default; set it to a whole number"):
        from_mapping(Needs, {})


def test_the_text_none_is_refused_where_it_would_be_read_as_no_value() -> None:
    with pytest.raises(PalavraError, match="note cannot be the text 'none'"):
        to_toml(Recipe(data=Data(note="none")))
    assert 'column = "none"' in to_toml(Recipe(data=Data(column="none")))


def test_none_over_another_default_is_written() -> None:
    written = to_toml(Recipe(train=Train(minutes=None)))
    assert 'minutes = "none"' in written
    assert "steps" not in written


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1" + "0" * 400, "9" * 5000])
def test_numbers_that_are_not_finite_are_refused_in_a_short_line(value: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(f"learning_rate = {value}")
    with pytest.raises(PalavraError, match=r"learning_rate must be a number|not valid TOML") as caught:
        from_toml(Optimizer, path)
    assert "\n" not in str(caught.value)
    with pytest.raises(PalavraError, match="learning_rate must be a number"):
        override(Optimizer(), [f"learning_rate={value}"])


@pytest.mark.parametrize("value", [10**180, -(2**63), "[" * 3000, "[" * 3000 + "]" * 3000])
def test_whole_numbers_have_64_bits_and_nesting_is_bounded(value: object, tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(f"steps = {value}")
    with pytest.raises(PalavraError, match=r"steps must be|not valid TOML|nested more than"):
        from_toml(Train, path)
    with pytest.raises(PalavraError, match="steps must be"):
        override(Train(), [f"steps={value}"])
    with pytest.raises(PalavraError, match="betas must be"):
        override(Optimizer(), [f"betas={value}"])


def test_half_a_character_is_refused_wherever_a_text_comes_from() -> None:
    with pytest.raises(PalavraError, match=r"note holds \\ud83d, which is half of a character"):
        override(Data(), ["note=a\ud83d"])
    with pytest.raises(PalavraError, match=r"note holds \\udcff"):
        from_mapping(Data, {"note": "a\udcff"})
    with pytest.raises(PalavraError, match=r"note holds \\ud83d"):
        to_toml(Recipe(data=Data(note="a\ud83d")))


def test_keys_lists_every_leaf() -> None:
    assert [each.key for each in declared(Train)] == [
        "steps",
        "minutes",
        "compile",
        "precision",
        *(f"optimizer.{name}" for name in ("name", "learning_rate", "betas", "clip")),
    ]
