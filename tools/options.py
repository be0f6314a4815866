"""NAME=value options of the tools that `make` calls."""

import os
import re
import sys

# Each tool imports this before it imports Keras, which reads its settings when it is imported.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # PyTorch's: lesson 7 says why


def import_quietly(module: str = "keras") -> None:
    """Import a module while what TensorFlow says about itself at its start goes nowhere."""
    sys.stderr.flush()
    console, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        __import__(module)
    finally:
        os.dup2(console, 2)
        os.close(console)
        os.close(nowhere)


def read(
    texts: list[str], program: str, defaults: dict[str, str], allowed: dict[str, str]
) -> dict[str, str]:
    """Return the defaults with the NAME=value `texts` put over them.

    `allowed` has a regular expression for each option that may not be anything, and after a blank
    the words for it in an error message. What is not allowed ends the program.
    """
    options = dict(defaults)
    for text in texts:
        name, _, value = text.partition("=")
        if name not in defaults:
            raise SystemExit(
                f"{program}: {name} is not an option; the options are {', '.join(defaults)}"
            )
        options[name] = value
    for name, rule in allowed.items():
        pattern, words = rule.split(" ", 1)
        if not re.fullmatch(pattern, options[name]):
            raise SystemExit(f"{program}: {name}={options[name]} must be {words}")
    return options


WHOLE = r"\d+ a whole number of at least 0"
POSITIVE = r"0*[1-9]\d* a whole number of at least 1"
WHOLES = r"\d+(,\d+)* whole numbers with commas between them"
