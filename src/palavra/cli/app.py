"""The command-line application: global options and error messages."""

import contextlib
import errno
import os
import sys
from typing import Annotated, Any

import typer

from palavra.cli.printing import print_row
from palavra.cli.streams import ReaderGone, print_note, print_traceback, standard_streams
from palavra.errors import PalavraError, lack_of_memory, options_as_flags

app = typer.Typer(
    name="palavra",
    help="From raw text to a language model that works for you: tokenizer, pretraining, fine-tuning, use.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# Bytes. Where less is allowed, some libraries end the process while they load.
LEAST_ADDRESS_SPACE = 1 << 30
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
    if not {"--help", "-h"}.intersection(sys.argv):
        _check_address_space()


def _check_address_space() -> None:
    """Raise MemoryError if a limit leaves no room for the libraries, some of which end the process while they load."""
    with contextlib.suppress(ImportError):  # not on Windows
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY and limit < LEAST_ADDRESS_SPACE:
            raise MemoryError(f"{limit:,} bytes of address space are allowed, {LEAST_ADDRESS_SPACE:,} are needed")


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
            _check_working_directory()
            code = app(standalone_mode=False)
    except PalavraError as error:
        # A file that could not be read for want of memory is not damaged.
        lack = lack_of_memory(error.__context__) if type(error) is PalavraError else None
        return _fail_for_memory(error, lack, debug) if lack else _fail(error, error.exit_code, debug)
    except KeyboardInterrupt as error:
        return _fail(error, 130, debug, "stopped")
    except ReaderGone as error:
        return error.exit_code
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        # What is written is checked before: a name that no file system takes, or links in a ring, are to be read.
        code = 2 if error.errno in (errno.ENAMETOOLONG, errno.ELOOP) else 1
        return _fail(error, code, debug, f"{where}{error.strerror or error}")
    except typer.Abort:
        return 1
    except Exception as error:
        if lack := lack_of_memory(error):
            return _fail_for_memory(error, lack, debug)
        if isinstance(error, _USAGE_ERROR):
            return _fail_usage(error, debug)
        if not type(error).__module__.startswith("palavra."):
            sys.excepthook = lambda _kind, bug, _trace: print_traceback(bug)
            raise
        return _fail(error, getattr(error, "exit_code", 1), debug)
    return code if isinstance(code, int) else 0


def _check_working_directory() -> None:
    """Raise PalavraError if it is gone: a library of torch would end the process."""
    try:
        os.getcwd()
    except OSError as error:
        raise PalavraError(f"the working directory cannot be used ({error.strerror}): change to another one") from None


# The base class of the library's usage errors has no public name.
_USAGE_ERROR = typer.BadParameter.__mro__[1]


def _fail_for_memory(error: BaseException, lack: BaseException, debug: bool) -> int:
    remedy = "end other programs, raise the limit (ulimit -v), or do less at once"
    return _fail(error, 1, debug, f"the memory does not suffice ({str(lack) or 'MemoryError'}): {remedy}")


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
