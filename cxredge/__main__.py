"""`cxredge`, and `python -m cxredge`. Light, so that Ctrl-C is heard before the libraries load, which takes a second."""

import os
import signal


def main() -> None:
    """The command line; Ctrl-C before its verb begins ends it with a line and exit code 130."""
    # One that is ignored, as after nohup, stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stopped)
    from cxredge.cli import main as run

    run()


def _stopped(_signal: int, _frame: object) -> None:
    # No exception: a library that is being loaded takes one for a fault of its own.
    os.write(2, b"cxredge: stopped before it began; nothing was done\n")
    os._exit(130)


if __name__ == "__main__":
    main()
