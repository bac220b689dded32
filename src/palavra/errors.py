"""The one exception that users see: a problem that they can fix, in one line."""


class PalavraError(Exception):
    """Wrong input, or a state that only the user can fix.

    The message is one line: what is wrong, where, and what to do about it. The command line prints it without a
    traceback and exits with code 2.
    """
