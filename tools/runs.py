"""The record of a training: written when it starts, completed when it ends."""

import contextlib
import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pandas as pd
from filelock import FileLock, Timeout

from tools.lessons import ROOT, code_lines, digest, write

BEGAN = time.perf_counter()  # when this command did
RUN, RESULTS = "run.json", "results.json"
NOTED = ("keras", "tensorflow", "jax", "torch", "captcha", "pillow", "numpy")  # packages


def code_hash() -> str:
    """Return the SHA-256 of the code of this repository that is imported, without its comments."""
    folders = [ROOT / name for name in ("captcha_reader", "notebooks_py", "tools")]
    files = [getattr(module, "__file__", None) for module in sys.modules.values()]
    paths = sorted({Path(file).resolve() for file in files if file})
    return digest([[path.stem, code_lines(path)] for path in paths if path.parent in folders])


def cpuinfo() -> str:
    """Return what Linux says about the processors; nothing on other systems."""
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.exists() else ""


def hardware() -> dict:
    """Return what speed and rounding depend on: processor, cores, Python and packages."""
    model = re.search(r"^model name\s*: (.+)", cpuinfo(), re.M)
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {x.name: x.version for x in metadata.distributions() if x.name in NOTED},
    }


def best_precision(backend: str) -> str:
    """Return "mixed_bfloat16" where the device computes in 16 bits, else "float32".

    NVIDIA's GPUs do so from compute capability 8.0 on (2020), some processors since 2020. Others
    emulate it, which takes many times as long.
    """
    half = "avx512_bf16" in cpuinfo() or "amx_bf16" in cpuinfo()
    if backend == "torch":
        import torch

        if torch.cuda.is_available():
            half = torch.cuda.get_device_capability() >= (8, 0)
    elif backend == "tensorflow":
        import tensorflow as tf

        for gpu in tf.config.list_physical_devices("GPU")[:1]:
            details = tf.config.experimental.get_device_details(gpu)
            half = details.get("compute_capability", (0, 0)) >= (8, 0)
    elif backend == "jax":
        import jax

        if jax.default_backend() == "gpu":
            half = float(jax.devices()[0].compute_capability) >= 8
    return "mixed_bfloat16" if half else "float32"


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other processes out of a folder for runs, which is made if it is not there.

    Raises:
        ValueError: it holds something other than a run, or another process is at work in it.
    """
    others = {path.name for path in out.glob("*")} - {".lock", f"{RUN}.new"}  # of a killed start
    if out.is_file() or others and RUN not in others:
        raise ValueError(f"{out} is not empty and holds no {RUN}: use OUT=another-folder")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(f"another process trains in {out}: wait, or use OUT=") from None


def count_steps(settings: dict, seconds_a_step: Callable[[], float]) -> int:
    """Return how many steps the budget pays for, rounded to the nearest.

    Minutes are those of the whole command: a twentieth is kept for reading held-out captchas, and a
    few seconds for the end.
    """
    batch, budget = settings["batch"], settings["budget"]
    if isinstance(budget, int):
        return round(budget / batch)
    seconds = 1.05 * seconds_a_step()
    left = 60 * int(budget.removesuffix("min")) - (time.perf_counter() - BEGAN) - 15
    steps = max(1, round(left / seconds))
    print(f"{batch / seconds:.0f} captchas a second: {steps * batch:,} in {budget}", flush=True)
    return steps


def open_run(out: Path, settings: dict, command: str, seconds_a_step: Callable[[], float]) -> dict:
    """Start the run of these settings in a folder, or go on with the one there; return its record.

    Its steps are counted at the start, by `count_steps`.

    Raises:
        ValueError: the folder holds a finished run, one of other settings, or one of other code.
    """
    code = code_hash()
    if not (out / RUN).exists():
        record = {"command": command, "settings": settings, "code": code, **hardware()}
        write_json(out / RUN, record | {"steps": count_steps(settings, seconds_a_step)})
    record = json.loads((out / RUN).read_text("utf-8"))
    for name, value in settings.items():
        if (old := record["settings"].get(name)) != value:
            of_tune = {"content": "other pictures", "start": "other first weights"}
            what = of_tune.get(name, f"{name.upper()}={old}, not {value}")
            raise ValueError(f"{out} holds a run with {what}: "
                             "use that to go on with it, or OUT=another-folder")  # fmt: skip
    if (out / RESULTS).exists():
        raise ValueError(f"{out} holds a finished run: use OUT=another-folder")
    if record["code"] != code:
        raise ValueError(f"the run in {out} began with other code: go on with that version of the "
                         "repository, or use OUT=another-folder")  # fmt: skip
    return record


def read_log(out: Path) -> pd.DataFrame:
    """Return the log of a run; an epoch that was interrupted and made again stands there once."""
    return pd.read_csv(out / "log.csv").drop_duplicates("epoch", keep="last")


def write_json(path: Path, content: dict) -> None:
    """Write JSON that a person can read, all or nothing."""
    write(path, json.dumps(content, indent=1) + "\n")
