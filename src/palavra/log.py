"""What a run says while it works: lines kept in a file, and one live line for the person who watches."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class LiveLine:
    """One progress line; `update` says how far things are and what else is worth seeing."""

    def __init__(self, progress: Progress, task: TaskID):
        self._progress, self._task = progress, task

    def update(self, done: float, detail: str = "") -> None:
        """Show `done` of the total, and `detail` behind it."""
        self._progress.update(self._task, completed=done, detail=detail)


class Log:
    """Lines go to the console (stderr, unless `quiet`) and, once `open_file` was called, to a file with times."""

    def __init__(self, *, quiet: bool = False):
        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._file: Path | None = None

    def open_file(self, path: Path) -> None:
        """Append every further line to `path`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path

    def line(self, text: str, style: str = "") -> None:
        """Say one line."""
        self._console.print(text, style=style, markup=False)
        if self._file is None:
            return
        try:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")
        except OSError as error:
            # A full disk ends the file, not the run.
            failed, self._file = self._file, None
            self.warn(f"{failed} is not written any more ({error.strerror}): free space on the disk")

    def warn(self, text: str) -> None:
        """Say one line that somebody should act on."""
        self.line(f"warning: {text}", style="yellow")

    @contextmanager
    def live(self, title: str, total: float | None) -> Iterator[LiveLine]:
        """A live line with a bar, the time gone and the time left; it is gone when the block ends."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[detail]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
        )
        # Into a file or a pipe only lines go: a bar there would be noise.
        hidden = self._console.quiet or not self._console.is_terminal
        with Progress(
            *columns, console=self._console, transient=True, refresh_per_second=4, disable=hidden
        ) as progress:
            yield LiveLine(progress, progress.add_task(title, total=total, detail=""))
