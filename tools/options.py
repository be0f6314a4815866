"""What the commands share: types of options, how they import Keras, and how they end.

A command has a parser of argparse. `make train MODEL=ctc` calls it with `--model=ctc`, and
`make train HELP=1` with `--help`.
"""

import argparse
import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

# Each tool imports this before it imports Keras, which reads its settings when it is imported.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads of PyTorch sleep


def import_keras() -> ModuleType:
    """Import Keras, and hide the messages that TensorFlow prints meanwhile."""
    console = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import notebooks_py  # noqa: F401, I001  brings what has to be imported before TensorFlow
        import keras

        return keras
    finally:
        os.dup2(console, 2)
        os.close(console)


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults, where there are any."""

    def _get_help_string(self, action: argparse.Action) -> str:
        return action.help if action.default is None else super()._get_help_string(action)


def parser(command: str, description: str) -> argparse.ArgumentParser:
    """Return a parser whose help shows the defaults, and whose errors begin with `command`."""
    how = {"formatter_class": _Help, "allow_abbrev": False}
    return argparse.ArgumentParser(prog=command, description=description, **how)


def number(kind: type, low: float, high: float, description: str) -> Callable[[str], float]:
    """Return a function that reads a number between two others."""

    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            if low <= kind(text) <= high:
                return kind(text)
        raise argparse.ArgumentTypeError(f"{text!r} is not {description}")

    return read


def path(text: str) -> Path:
    """Return the path that a text names; some shells leave the ~ in OUT=~/run as it is."""
    return Path(text).expanduser()


whole = number(int, 0, 2**32 - 1, f"a whole number from 0 to {2**32 - 1}")  # such as a seed
positive = number(int, 1, float("inf"), "a whole number of at least 1")
share = number(float, 0, 1, "a number from 0 to 1, such as 0.2")


def end_with(main: Callable[[], int | None]) -> None:
    """Call `main` and end this process with its exit code; an error of the user is one line.

    Ctrl-C ends with 3, so that a script can tell. TensorFlow's thread that asks for batches ahead
    waits for Python, and at an ordinary end Python waits for it: after Ctrl-C for ever.
    """
    code = 1
    try:
        code = main()
    except SystemExit as error:  # of argparse, which has printed a line
        code = error.code
    except (ModuleNotFoundError, OSError, RuntimeError, ValueError) as error:
        cure = "; `make setup-torch` adds it" if getattr(error, "name", "") == "torch" else ""
        print(f"{Path(sys.argv[0]).stem}: {error}{cure}", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on with a training where it was")
        code = 3
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)
