"""The error for a place that cannot be written."""

from palavra.errors import PalavraError


class Unwritable(PalavraError):
    """A file or folder that the system does not let us write. The command line exits with code 1."""

    exit_code = 1
