"""What the tests themselves never do."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def string_patches(path: Path) -> list[str]:
    """Every call that patches an attribute named by a dotted path in a string, which no tool follows when it moves."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name)):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
        # setattr(path, value) and delattr(path), beside setattr(thing, name, value) and delattr(thing, name)
        usual = {"setattr": 3, "delattr": 2}.get(name)
        text = bool(node.args) and isinstance(node.args[0], ast.Constant | ast.JoinedStr)
        if (usual and (len(node.args) < usual or text)) or (name == "patch" and text):
            found.append(f"{path}:{node.lineno}: patch an attribute of an imported module or class instead")
    return found


def test_no_path_is_patched_as_a_string() -> None:
    found = [line for path in sorted(TESTS.rglob("*.py")) for line in string_patches(path)]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("patch.setattr('palavra.log.line', print)", 1),
        ("patch.setattr(f'palavra.{module}.line', print)", 1),
        ("patch.setattr(path, print)", 1),
        ("patch.delattr('palavra.log.line')", 1),
        ("mock.patch('palavra.log.line')", 1),
        ("patch.setattr(log, 'line', print)", 0),
        ("patch.delattr(log, 'line')", 0),
        ("setattr(log, 'line', print)", 0),
    ],
)
def test_a_planted_patch_is_found(tmp_path: Path, line: str, count: int) -> None:
    (tmp_path / "planted.py").write_text(line)
    assert len(string_patches(tmp_path / "planted.py")) == count
