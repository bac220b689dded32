"""The log of a run: lines, also written to a file, and a progress bar."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from palavra.errors import with_options_named
from palavra.files import open_append
from palavra.printable import one_message

# Seconds between two updates of a progress bar.
_REDRAWN = 0.25


class LiveLine:
    """A progress bar; `update` sets the progress and a detail."""

    def __init__(self, progress: Progress, task: TaskID, notebook: "_NotebookLine | None"):
        self._progress, self._task, self._notebook = progress, task, notebook

    def update(self, done: float, detail: str = "", total: float | None = None) -> None:
        """Show `done` of the total, followed by `detail`; `total` replaces the one before."""
        self._progress.update(self._task, completed=done, detail=one_message(detail), total=total)
        if self._notebook is not None:
            self._notebook.draw(self._progress)


class _NotebookLine:
    """A progress bar in the output of a notebook's cell, redrawn in its place."""

    def __init__(self) -> None:
        from IPython.display import display

        self._drawn = 0.0
        self._handle: Any = display(_Html(""), display_id=True)

    def draw(self, progress: Progress) -> None:
        """Draw the bar, at most a few times a second."""
        if time.monotonic() - self._drawn < _REDRAWN:
            return
        self._drawn = time.monotonic()
        console = Console(file=StringIO(), record=True, width=110, force_jupyter=False, force_terminal=True)
        console.print(progress.get_renderable())
        self._handle.update(_Html(console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")))

    def clear(self) -> None:
        """Remove the bar."""
        self._handle.update(_Html(""))


class _Html:
    """Text that a notebook displays as HTML."""

    def __init__(self, html: str):
        self._html = html

    def _repr_html_(self) -> str:
        return self._html


class _StandardError:
    """The standard error of the moment. That it cannot be written, as on a terminal that was closed, stops no run."""

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()

    @property
    def _file(self) -> Any:
        return getattr(sys.stderr, "rich_proxied_file", sys.stderr) or StringIO()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Log:
    """Lines go to the console (stderr, unless `quiet`) and, once `open_file` was called, to a file with times."""

    def __init__(self, *, quiet: bool = False):
        file: Any = _StandardError()
        self._console = Console(file=file, quiet=quiet, highlight=False, soft_wrap=True, markup=False, emoji=False)
        self._file: Path | None = None
        self.unwritten: list[str] = []

    def open_file(self, path: Path) -> None:
        """Append every further line to `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path

    def line(self, text: str, style: str = "") -> None:
        """Log one line, escaped and bounded as errors are; options in it are named as there."""
        text = one_message(with_options_named(text))
        self._console.print(text, style=style)
        if self._file is None:
            return
        try:
            with open_append(self._file) as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        except OSError as error:
            # A full disk stops the log file, not the run.
            failed, self._file = self._file, None
            self.lost(failed)
            self.warn(f"{failed} is no longer written ({error.strerror}): free space on the disk")

    def warn(self, text: str) -> None:
        """Log a warning."""
        self.line(f"warning: {text}", style="yellow")

    def lost(self, path: Path) -> None:
        """Record a file or folder of a run that could not be written, or not as a whole."""
        if str(path) not in self.unwritten:
            self.unwritten.append(str(path))

    @contextmanager
    def live(self, title: str, total: float | None) -> Iterator[LiveLine]:
        """Show a progress bar with elapsed and remaining time, on terminals and in notebooks, while the block runs."""
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
        )
        notebook = _NotebookLine() if self._console.is_jupyter and not self._console.quiet else None
        # Files and pipes get lines only.
        hidden = self._console.quiet or not self._console.is_terminal
        with Progress(
            *columns, console=self._console, transient=True, refresh_per_second=4, disable=hidden
        ) as progress:
            try:
                yield LiveLine(progress, progress.add_task(one_message(title), total=total, detail=""), notebook)
            finally:
                if notebook is not None:
                    notebook.clear()
