"""What a command gives that a test runs in its own process: exit code, standard output, standard error."""

from collections.abc import Callable

Ask = Callable[..., tuple[int, str, str]]
