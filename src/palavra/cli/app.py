"""The command-line application: global options and error messages."""

import sys
from typing import Annotated, Any

import typer

from palavra.cli.printing import print_row
from palavra.cli.streams import ReaderGone, print_note, print_traceback, standard_streams
from palavra.errors import PalavraError, options_as_flags

app = typer.Typer(
    name="palavra",
    help="From raw text to a language model that works for you: tokenizer, pretraining, fine-tuning, use.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
tokenizer_app = typer.Typer(help="Train a tokenizer.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(tokenizer_app, name="tokenizer")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print_row(version("palavra"))
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Options before the command."""
    del version  # printed by its callback
    del debug  # read by `main` before anything can fail


def main() -> None:
    """Run the command line: user errors print one line, tracebacks need --debug."""
    with options_as_flags():
        sys.exit(_main())


def _main() -> int:
    debug = "--debug" in sys.argv
    # Accepted anywhere on the line, not only before the command.
    sys.argv = [sys.argv[0], *(argument for argument in sys.argv[1:] if argument != "--debug")]
    try:
        with standard_streams():
            code = app(standalone_mode=False)
    except PalavraError as error:
        return _fail(error, error.exit_code, debug)
    except KeyboardInterrupt as error:
        return _fail(error, 130, debug, "stopped")
    except ReaderGone as error:
        return error.exit_code
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(error, 1, debug, f"{where}{error.strerror or error}")
    except typer.Abort:
        return 1
    except Exception as error:
        if isinstance(error, _USAGE_ERROR):
            return _fail_usage(error, debug)
        if not type(error).__module__.startswith("palavra."):
            sys.excepthook = lambda _kind, bug, _trace: print_traceback(bug)
            raise
        return _fail(error, getattr(error, "exit_code", 1), debug)
    return code if isinstance(code, int) else 0


# The base class of the library's usage errors has no public name.
_USAGE_ERROR = typer.BadParameter.__mro__[1]


def _fail_usage(error: Any, debug: bool) -> int:
    """Print a usage error in one line, or the help if no command was given. Return its exit code."""
    context = error.ctx
    code: int = error.exit_code
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return code
    said = " ".join(error.format_message().split()).removesuffix(".").replace("Value error, ", "")
    command = context.command_path if context is not None else "palavra"
    return _fail(error, code, debug, f"{said[:1].lower()}{said[1:]} ({command} --help shows the options)")


def _fail(error: BaseException, code: int, debug: bool, message: str | None = None) -> int:
    """Print an error in one line, or its traceback. Return `code`."""
    if debug:
        print_traceback(error)
    else:
        said = "; ".join([message or str(error), *getattr(error, "__notes__", ())])
        print_note(f"palavra: {said or type(error).__name__}")
    return code
