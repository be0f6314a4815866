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
EXTRAS = {"torch": "1 GB, on Linux several with CUDA's", "jax": "0.5 GB"}  # requirements-NAME.txt


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


def extra_stamp(root, name):
    """The file that is there if an extra is wanted; with another content it is installed again."""
    return root / ".venv" / f".extra-{name}"


def extra_text(root, name):
    """What a finished installation of an extra depends on."""
    pins = hashlib.sha256((root / f"requirements-{name}.txt").read_bytes()).hexdigest()
    return stamp_text(root) + f"requirements-{name}.txt {pins}\n"


def is_complete(root):
    """Whether `.venv` was finished for exactly these pins, and its Python is still there."""
    stamp = root / ".venv" / STAMP
    return (
        stamp.is_file()
        and stamp.read_text(encoding="utf-8") == stamp_text(root)
        and os.access(str(root / ".venv" / "bin" / "python"), os.X_OK)
    )


def has_extra(root, name):
    """Whether an extra was installed in `.venv` for exactly these pins."""
    stamp = extra_stamp(root, name)
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == extra_text(root, name)


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
    extras = [name for name in EXTRAS if extra_stamp(root, name).exists()]
    print("set-up: installing the pinned packages into .venv (about 3 minutes, 2.5 GB)", flush=True)
    start = time.time()
    step(
        [sys.executable, "-m", "venv", "--clear", str(venv)],
        "Python could not make a virtual environment; on Debian and Ubuntu install the package "
        f"python{sys.version_info[0]}.{sys.version_info[1]}-venv, then try again",
    )
    for name in extras:  # --clear deleted it, and the wish for it
        extra_stamp(root, name).touch()
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


def install_extra(root, name):
    """Add an extra to a finished `.venv`."""
    print(f"set-up: adding {name} to .venv ({EXTRAS[name]})", flush=True)
    python = str(root / ".venv" / "bin" / "python")
    pins, lock = root / f"requirements-{name}.txt", root / "requirements.lock"
    step(
        [python, *PIP, "-r", str(pins), "-c", str(lock)],
        f"pip could not install requirements-{name}.txt (its message is above); check the network "
        f"and the free disk space, then run `make setup-{name}` again",
    )
    extra_stamp(root, name).write_text(extra_text(root, name), encoding="utf-8")


def main():
    """Check first, install only where something changed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).resolve().parent.parent)
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help="add " + " or ".join(EXTRAS))
    options = parser.parse_args()
    root = options.root.resolve()
    unknown = [name for name in options.extras if name not in EXTRAS]
    if unknown:
        raise SystemExit(f"set-up: {unknown[0]} is no extra; the extras are {', '.join(EXTRAS)}")
    check_python(sys.version_info)
    check_lock(root)
    if not is_complete(root):
        install(root)
    for name in EXTRAS:
        wanted = name in options.extras or extra_stamp(root, name).exists()
        if wanted and not has_extra(root, name):
            install_extra(root, name)
    if not shutil.which("dot"):
        print("set-up: Graphviz's `dot` is not here, so the committed diagrams will be shown")


if __name__ == "__main__":
    main()
