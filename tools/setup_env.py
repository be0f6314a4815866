"""Make or check `.venv`, the environment of every make target: `python3 tools/setup_env.py`.

Runs under whatever python3 a newcomer has: it needs the standard library alone, and syntax that an
old Python understands well enough to reach the message about its version.
"""

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

PIP = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
OLDEST, NEWEST = (3, 11), (3, 13)
STAMP = ".complete"  # written last: without it, or with another content, everything is made anew
TORCH_STAMP = ".torch"  # there if PyTorch is wanted; with another content it is installed again


def check_python(version):
    """Refuse a Python that the pinned packages have no build for."""
    if OLDEST <= tuple(version[:2]) <= NEWEST:
        return
    names = [f"python3.{minor}" for minor in range(NEWEST[1], OLDEST[1] - 1, -1)]
    found = [name for name in names if shutil.which(name)]
    fix = "name a fitting one" if found else "install Python 3.12 and name it"
    raise SystemExit(
        f"set-up: this is Python {version[0]}.{version[1]}, but the lessons need 3.{OLDEST[1]} to "
        f"3.{NEWEST[1]}; {fix}, as in `make run-all PYTHON={(found or ['python3.12'])[0]}`"
    )


def read_pins(path):
    """The `name==version` lines of a requirements file, as a list of (name, version)."""
    lines = path.read_text(encoding="utf-8").splitlines()
    pins = [re.match(r"([A-Za-z0-9._-]+)==([^\s;#]+)", line) for line in lines]
    return [(re.sub(r"[-_.]+", "-", pin.group(1)).lower(), pin.group(2)) for pin in pins if pin]


def check_lock(root):
    """Refuse a lock that was not made from the pins."""
    locked = {}
    for name, version in read_pins(root / "requirements.lock"):
        locked.setdefault(name, []).append(version)
    for name, version in read_pins(root / "requirements.txt"):
        if version not in locked.get(name, []):
            raise SystemExit(
                f"set-up: requirements.txt pins {name}=={version}, but requirements.lock has "
                f"{' and '.join(locked.get(name, ['no such package']))}; run `make lock`"
            )


def stamp_text(root):
    """What the finished environment depends on: the pins, Python and the place."""
    lock = hashlib.sha256((root / "requirements.lock").read_bytes()).hexdigest()
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    parts = [f"python {version}", f"folder {root}", f"requirements.lock {lock}"]
    return "\n".join(parts) + "\n"


def torch_text(root):
    """What a finished installation of PyTorch depends on."""
    pins = hashlib.sha256((root / "requirements-torch.txt").read_bytes()).hexdigest()
    return stamp_text(root) + f"requirements-torch.txt {pins}\n"


def is_complete(root):
    """Whether `.venv` was finished for exactly these pins, and its Python is still there."""
    stamp = root / ".venv" / STAMP
    return (
        stamp.is_file()
        and stamp.read_text(encoding="utf-8") == stamp_text(root)
        and os.access(str(root / ".venv" / "bin" / "python"), os.X_OK)
    )


def has_torch(root):
    """Whether PyTorch was installed in `.venv` for exactly these pins."""
    stamp = root / ".venv" / TORCH_STAMP
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == torch_text(root)


def step(command, failure):
    """Run one command of the installation; where it fails, say what to do."""
    if subprocess.call(command) != 0:
        raise SystemExit(f"set-up: {failure}")


def install(root):
    """Make `.venv` from nothing."""
    venv = root / ".venv"
    python = str(venv / "bin" / "python")
    if (venv / STAMP).exists():
        (venv / STAMP).unlink()
    torch = (venv / TORCH_STAMP).exists()
    print("set-up: installing the pinned packages into .venv (about 3 minutes, 2.5 GB)", flush=True)
    start = time.time()
    step(
        [sys.executable, "-m", "venv", "--clear", str(venv)],
        "Python could not make a virtual environment; on Debian and Ubuntu install the package "
        f"python{sys.version_info[0]}.{sys.version_info[1]}-venv, then try again",
    )
    if torch:  # --clear deleted it, and the wish for it
        (venv / TORCH_STAMP).touch()
    pip = [python, *PIP]
    step(
        [*pip, "-r", str(root / "requirements.lock")],
        "pip could not install requirements.lock (its message is above); check the network and "
        "the free disk space, then try again",
    )
    step(
        [*pip, "--no-deps", "--no-build-isolation", "-e", str(root)],
        "pip could not install this repository (its message is above)",
    )
    # Matplotlib lists the fonts when first imported, and warns where that is slow: not in a lesson.
    os.environ["MPLCONFIGDIR"] = str(venv / "var" / "matplotlib")
    step([python, "-c", "import matplotlib.font_manager"], "Matplotlib cannot be imported")
    (venv / STAMP).write_text(stamp_text(root), encoding="utf-8")
    print(f"set-up: done in {time.time() - start:.0f} s", flush=True)


def install_torch(root):
    """Add PyTorch to a finished `.venv`."""
    print("set-up: adding PyTorch to .venv (1 GB, on Linux several with CUDA's)", flush=True)
    python = str(root / ".venv" / "bin" / "python")
    pins, lock = root / "requirements-torch.txt", root / "requirements.lock"
    step(
        [python, *PIP, "-r", str(pins), "-c", str(lock)],
        "pip could not install requirements-torch.txt (its message is above); check the network "
        "and the free disk space, then run `make setup-torch` again",
    )
    (root / ".venv" / TORCH_STAMP).write_text(torch_text(root), encoding="utf-8")


def main():
    """Check first, install only where something changed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--torch", action="store_true", help="add PyTorch too")
    options = parser.parse_args()
    root = options.root.resolve()
    check_python(sys.version_info)
    check_lock(root)
    if not is_complete(root):
        install(root)
    wanted = options.torch or (root / ".venv" / TORCH_STAMP).exists()
    if wanted and not has_torch(root):
        install_torch(root)
    if not shutil.which("dot"):
        print("set-up: Graphviz's `dot` is not here, so the committed diagrams will be shown")


if __name__ == "__main__":
    main()
