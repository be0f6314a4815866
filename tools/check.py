"""Everything that CI checks, stage by stage: `make test`.

All stages run, also after one that failed; the table at the end and the exit status say which.
"""

import subprocess
import sys
import time

from lessons import ROOT

PYTHON = sys.executable


def repository_state() -> str | None:
    """What git sees of the working tree, or None outside a git checkout."""
    texts = []
    for command in (["status", "--porcelain"], ["diff", "HEAD"]):
        result = subprocess.run(["git", "-C", str(ROOT), *command], capture_output=True, text=True)
        if result.returncode != 0:
            return None
        texts.append(result.stdout)
    return "\n".join(texts)


def call(*command: str) -> bool:
    """Run one command in the repository; whether it succeeded."""
    return subprocess.run([PYTHON, *command], cwd=ROOT).returncode == 0


def style() -> bool:
    """Style and layout of all code, and both sides of each lesson equal."""
    results = [
        call("-m", "ruff", "check", "."),
        call("-m", "ruff", "format", "--check", "."),
        call("tools/gates.py", "sync"),
    ]
    return all(results)


def unit_tests() -> bool:
    """Unit tests, the gates that read files, and the tests of the gates."""
    # A module stays in one process, where its tests share what they have trained.
    return call("-m", "pytest", "tests", "-n", "2", "--dist", "loadscope")


def committed_outputs() -> bool:
    """Strict nbval of the committed notebooks."""
    return call("tools/gates.py", "nbval")


def run_all() -> bool:
    """Every lesson at its smallest, then strict nbval of what that run printed."""
    if not call("tools/run_lessons.py", "STEPS=2"):
        return False
    newest = max(ROOT.glob("build/run-all/[0-9]*"), key=lambda folder: int(folder.name))
    return call("tools/gates.py", "nbval", "--notebooks", str(newest))


def main() -> int:
    """Run the stages and print the table; 1 if any failed."""
    before = repository_state()
    rows = []
    for stage in (style, unit_tests, committed_outputs, run_all):
        print(f"\n== {stage.__name__}: {stage.__doc__}", flush=True)
        start = time.monotonic()
        ok = stage()
        rows.append((stage.__name__, time.monotonic() - start, "ok" if ok else "FAILED"))
        print(f"== {rows[-1][0]} {rows[-1][2]}  {rows[-1][1]:.0f} s", flush=True)
    unchanged = repository_state() == before
    rows.append(("nothing_changed", 0, "ok" if unchanged else "FAILED: see `git status`"))
    print(f"\n{'stage':18}  seconds  result")
    for name, seconds, result in rows:
        print(f"{name:18}  {seconds:7.0f}  {result}")
    return 0 if all(result == "ok" for _, _, result in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
