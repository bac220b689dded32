"""`python -m palavra`, and the command `palavra`."""

import signal
import sys


def main() -> None:
    """Run the command line. Ctrl-C ends it without a traceback, also while it is loaded and while it ends."""
    try:
        from palavra.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
