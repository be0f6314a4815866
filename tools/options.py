"""NAME=value options of the tools that `make` calls."""

import contextlib
import os
import re
from collections.abc import Iterator

# Each tool imports this before it imports Keras, which reads its settings when it is imported.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # PyTorch's: lesson 7 says why


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """While Keras is imported, let what TensorFlow says about itself at its start go nowhere."""
    console = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401  PyTorch's for CUDA; it crashes if TensorFlow was imported before
    try:
        yield
    finally:
        os.dup2(console, 2)
        os.close(console)


def read(texts: list[str], program: str, defaults: dict, allowed: dict) -> dict[str, str]:
    """Return the defaults with the NAME=value `texts` put over them, or end the program.

    `allowed` has regular expressions, and after a blank the words for them in an error message.
    """
    options = dict(defaults)
    for text in texts:
        name, _, value = text.partition("=")
        if name not in defaults:
            known = ", ".join(defaults)
            raise SystemExit(f"{program}: {name} is not an option; the options are {known}")
        options[name] = value
    for name, rule in allowed.items():
        pattern, words = rule.split(" ", 1)
        if not re.fullmatch(pattern, options[name]):
            raise SystemExit(f"{program}: {name}={options[name]} must be {words}")
    return options


WHOLE = r"\d+ a whole number of at least 0"
POSITIVE = r"0*[1-9]\d* a whole number of at least 1"
WHOLES = r"\d+(,\d+)* whole numbers with commas between them"
