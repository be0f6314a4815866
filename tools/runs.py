"""The record of a training: written when it starts, completed when it ends."""

import contextlib
import hashlib
import json
import os
import platform
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from filelock import FileLock, Timeout

from tools.lessons import ROOT, write

RUN, RESULTS = "run.json", "results.json"
NOTED = ("keras", "tensorflow", "jax", "torch", "captcha", "pillow", "numpy")  # packages


def code_hash() -> str:
    """Return the SHA-256 of the code of this repository that is imported, without its comments."""
    files = {Path(module.__file__).resolve() for module in sys.modules.values()
             if getattr(module, "__file__", None)}  # fmt: skip
    digest = hashlib.sha256()
    for path in sorted(files):
        parts = path.relative_to(ROOT).parts if path.is_relative_to(ROOT) else ("",)
        if parts[0] in ("captcha_reader", "notebooks_py", "tools"):
            lines = path.read_text("utf-8").splitlines()
            code = [line for line in lines if line.strip() and not line.startswith("#")]
            digest.update("\n".join([path.stem, *code]).encode())
    return digest.hexdigest()


def hardware() -> dict:
    """Return what speed and rounding depend on: processor, cores, Python and packages."""
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.+)", cpuinfo.read_text(), re.M) if cpuinfo.exists() else 0
    installed = {d.name.lower(): d.version for d in metadata.distributions() if d.name}
    return {
        "cpu": model[1] if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: installed[name] for name in NOTED if name in installed},
    }


def best_precision(in_torch: bool) -> str:
    """Return "mixed_bfloat16" where the device computes in 16 bits, else "float32".

    NVIDIA's GPUs do so from compute capability 8.0 on (2020), some processors since 2020. Others
    emulate it, which takes many times as long.
    """
    capability = None  # of the first GPU
    if in_torch:
        import torch

        if torch.cuda.is_available():
            capability = torch.cuda.get_device_capability()[0]
    else:
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            for gpu in tf.config.list_physical_devices("GPU")[:1]:
                details = tf.config.experimental.get_device_details(gpu)
                capability = details.get("compute_capability", (0, 0))[0]
        elif keras.backend.backend() == "jax":
            import jax

            if jax.default_backend() == "gpu":
                capability = int(str(jax.devices()[0].compute_capability).split(".")[0])
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    processor = "avx512_bf16" in flags or "amx_bf16" in flags
    half = processor if capability is None else capability >= 8
    return "mixed_bfloat16" if half else "float32"


@contextlib.contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keep other processes out of a folder for runs, which is made if it is not there.

    Raises:
        ValueError: it holds something else than a run, or another process is at work in it.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is no folder: use OUT=another-folder")
    others = sorted(path.name for path in out.glob("*") if path.name != ".lock")
    if others and RUN not in others:
        raise ValueError(
            f"{out} is not empty and holds no {RUN} ({others[0]} is in it): use OUT=another-folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(f"another process trains in {out}: wait, or use OUT=") from None


def open_run(out: Path, settings: dict, command: str, plan: Callable[[], dict]) -> dict:
    """Start the run of these settings in a folder, or find it there; return its record.

    `plan()` says what else to write down when it starts, such as its number of steps.

    Raises:
        ValueError: the folder holds a finished run, one of other settings, or one of other code.
    """
    code = code_hash()
    if not (out / RUN).exists():
        record = {"command": command, "settings": settings, "code": code, **hardware(), **plan()}
        write(out / RUN, json.dumps(record, indent=1) + "\n")
    record = json.loads((out / RUN).read_text("utf-8"))
    for name, value in settings.items():
        if record["settings"].get(name) != value:
            held = f"{out} holds a run with {name}={record['settings'].get(name)}, not {value}"
            raise ValueError(f"{held}: use that to go on with it, or OUT=another-folder")
    if (out / RESULTS).exists():
        raise ValueError(f"{out} holds a finished run: use OUT=another-folder")
    if record["code"] != code:
        raise ValueError(
            f"the run in {out} began with other code: go on with that version of the repository, "
            "or use OUT=another-folder"
        )
    return record


def end_with(main: Callable[[], int | None]) -> None:
    """Call `main`, and end this process with its exit code, whatever other threads are doing.

    TensorFlow's thread that asks for batches ahead waits for Python, and at an ordinary end Python
    waits for it: after Ctrl-C for ever.
    """
    try:
        code = main()
    except SystemExit as error:
        code = error.code
    except BaseException:
        code = traceback.format_exc()
    if isinstance(code, str):
        print(code, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if isinstance(code, str) else code or 0)


def finish_run(out: Path, record: dict, results: dict) -> dict:
    """Complete the record of a run with what came out, as results.json; return it."""
    record |= results
    write(out / RESULTS, json.dumps(record, indent=1) + "\n")
    return record
