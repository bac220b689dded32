"""What reaches a terminal, and what a command does when a standard stream is not there."""

import io
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from builders.commands import Ask

from palavra.cli.printing import one_line, print_json_line, print_row, print_text
from palavra.cli.streams import print_note, standard_streams
from palavra.errors import PalavraError
from palavra.log import Log

# Colours, a title, a C1 control, delete, a carriage return, line ends of all kinds, writing from right to left, and a
# byte of a file name that is no UTF-8.
HOSTILE = "a\x1b[31mb\x1b]0;t\x07c\x9bd\x7fe\rf\ng\u2028h\u2029i\u202ej\udcffk"
SHOWN = r"a\x1b[31mb\x1b]0;t\x07c\x9bd\x7fe\rf\ng\u2028h\u2029i\u202ej\udcffk"


class Terminal(io.StringIO):
    """A standard stream that is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Full(Terminal):
    """A standard stream to which nothing can be written."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def printed(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal as the standard output."""
    monkeypatch.setattr(sys, "stdout", made := Terminal())
    return made


def test_text_is_escaped_on_a_terminal_and_exact_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = printed(monkeypatch)
    spoken = "می\u200cخواهم 👨\u200d👩 10\u00a0%\tfim\n"
    print_text(spoken + HOSTILE)
    assert terminal.getvalue() == spoken + SHOWN.replace(r"\n", "\n") + "\n"
    monkeypatch.setattr(terminal, "isatty", lambda: False)
    terminal.truncate(0)
    terminal.seek(0)
    print_text(HOSTILE, end="")
    assert terminal.getvalue() == HOSTILE


def test_json_is_escaped_as_json_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = printed(monkeypatch)
    values = {"text": f"é 👍 {HOSTILE} \U000e0001"}
    print_json_line(values)
    print_json_line("é 👍")
    line, spoken = terminal.getvalue().splitlines()
    assert line.isprintable()
    assert json.loads(line) == values
    assert spoken == '"é 👍"'


def test_json_needs_no_letters_that_the_output_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = printed(monkeypatch)
    monkeypatch.setattr(Terminal, "encoding", "latin-1")
    print_json_line(["é 猫"])
    assert terminal.getvalue() == '["\\u00e9 \\u732b"]\n'


@pytest.mark.parametrize(
    "said",
    [
        lambda: print_note(HOSTILE),
        lambda: Log().line(HOSTILE),
        lambda: Log().line(str(PalavraError(HOSTILE))),
        lambda: logging.getLogger("library").error("%s", HOSTILE),
    ],
)
def test_messages_are_one_escaped_line(said: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", found := io.StringIO())
    monkeypatch.setattr(logging, "lastResort", logging.StreamHandler(found))
    monkeypatch.setattr(logging.getLogger("library"), "propagate", False)
    with standard_streams():
        said()
    assert found.getvalue() == f"{SHOWN}\n"


def test_warnings_of_libraries_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = warnings.formatwarning
    with standard_streams():
        shown = warnings.formatwarning(HOSTILE, UserWarning, "file.py", 1)
    assert SHOWN.replace(r"\n", "\n") in shown
    assert warnings.formatwarning is plain


def test_rows_of_tables_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = printed(monkeypatch)
    print_row(one_line(HOSTILE))
    assert terminal.getvalue() == f"{SHOWN}\n"


@pytest.mark.parametrize("of", [PalavraError("é" * 10**6 + "; do this"), PalavraError("\x1b" * 10**6 + "; do this")])
def test_a_message_has_a_bounded_length(of: PalavraError) -> None:
    assert len(str(of)) < 2100
    assert str(of).endswith("; do this")


def test_a_log_line_in_the_file_is_as_on_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.open_file(tmp_path / "train.log")
    log.warn(f"[red]:cat: {HOSTILE}")
    (line,) = (tmp_path / "train.log").read_text(encoding="utf-8").splitlines()
    assert line[20:] == f"warning: [red]:cat: {SHOWN}"
    assert capsys.readouterr().err == f"{line[20:]}\n"


def test_a_terminal_that_is_gone_stops_no_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "stderr", Full())
    log = Log()
    log.open_file(tmp_path / "train.log")
    with log.live("title", 3) as live:
        log.line("a line")
        live.update(1, "detail")
    assert "a line" in (tmp_path / "train.log").read_text(encoding="utf-8")


def test_a_bar_shows_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    with Log().live("[/x] \x07", 3) as live:
        live.update(1, "[/y] \x9b")
    assert r"[/x] \x07" in shown.getvalue()
    assert r"[/y] \x9b" in shown.getvalue()


def test_tracebacks_are_escaped(ask: Ask) -> None:
    code, _, err = ask("report", HOSTILE, "--debug")
    assert code == 2
    assert "Traceback" in err
    assert SHOWN in err
    assert err.replace("\n", "").isprintable()


def shell(line: str) -> "subprocess.CompletedProcess[str]":
    """Run the command as `$palavra` in a shell."""
    script = f'palavra="$0 -m palavra"; {line}'
    return subprocess.run(["bash", "-c", script, sys.executable], capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("$palavra options >&-", 1, "palavra: standard output: it is closed\n"),
        ("$palavra options > /dev/full", 1, "palavra: standard output: No space left on device\n"),
        ("$palavra --help > /dev/full", 1, "palavra: No space left on device\n"),
        ("$palavra options 2>&- > /dev/null", 0, ""),
        ("$palavra nothing 2>&-", 2, ""),
        ("$palavra nothing 2> /dev/full", 2, ""),
        ("$palavra options <&- > /dev/null", 0, ""),
        (
            "cd $(mktemp -d); rmdir $PWD; $palavra options",
            2,
            "palavra: the working directory cannot be used (No such file or directory): change to another one\n",
        ),
    ],
)
def test_a_standard_stream_that_fails_is_one_line_and_a_code(line: str, code: int, said: str) -> None:
    done = shell(line)
    assert (done.returncode, done.stderr) == (code, said)


@pytest.mark.slow
def test_a_reader_that_is_gone_ends_a_command_without_a_word() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as nobody:
        command = [sys.executable, "-m", "palavra", "options"]
        done = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_standard_input_that_is_closed_is_wrong_input(
    ask: Ask, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    code, out, err = ask("predict", folders / "classification", "--file", "-")
    assert (code, out) == (2, "")
    assert err.startswith("palavra: the standard input is closed")


@pytest.mark.parametrize(
    "arguments",
    [("fill", "{}", "\udcff [MASK]"), ("generate", "{}", "\udcff"), ("generate", "{}", "a", "--stop", "\udcff"),
     ("score", "{}", "\udcff"), ("embed", "{}", "\udcff"), ("predict", "{}", "\udcff")],
)  # fmt: skip
def test_a_text_that_is_not_in_the_encoding_of_the_locale_is_refused(
    pretrained: Path, folders: Path, ask: Ask, arguments: tuple[str, ...]
) -> None:
    kinds = {"predict": folders / "classification", "generate": pretrained / "gpt2"}
    model = kinds.get(arguments[0], pretrained / "bert")
    code, out, err = ask(*(argument.format(model) for argument in arguments))
    assert (code, out) == (2, "")
    assert err.startswith(r"palavra: the text '\udcff")
    assert "is not valid utf-8" in err
