"""Everything that CI checks: `make test`.

Style first. Then two jobs at a time, long ones first: each lesson's committed notebook is run again
and compared to the letter, the tests, and each lesson once more at its smallest. All jobs run, also
after one that failed; the table at the end and the exit status say which.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import lessons
import run_lessons
from lessons import ROOT, Lesson

TINY = {"STEPS": 2, "EPOCHS": 1}


def repository_state() -> str:
    """What git sees of the working tree; nothing outside a git checkout."""
    commands = (["status", "--porcelain"], ["diff", "HEAD"])
    calls = (["git", "-C", str(ROOT), *command] for command in commands)
    return "\n".join(subprocess.run(c, capture_output=True, text=True).stdout for c in calls)


def call(*command: str, env: dict | None = None, root: Path = ROOT) -> tuple[bool, str]:
    """Run a Python command in the repository; whether it succeeded, and what it wrote."""
    result = subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return result.returncode == 0, result.stdout.strip()


def style() -> tuple[bool, str]:
    """Check style and layout of all code, and the rules for lessons that need no run."""
    commands = (("-m", "ruff", "check", "."), ("-m", "ruff", "format", "--check", "."))
    results = [call(*command) for command in (*commands, ("tools/gates.py",))]
    return all(ok for ok, _ in results), "\n".join(text for _, text in results)


def tests(files: list[Path]) -> tuple[bool, str]:
    """Run some of the tests."""
    return call("-m", "pytest", "-p", "no:cacheprovider", "--color=no", *map(str, files))


def strict(lesson: Lesson, folder: Path) -> tuple[bool, str]:
    """Run a committed notebook with nbval: every printed output must be the same text."""
    command = ["-m", "pytest", "--nbval", "-q", "-rfE", "--color=no", "-o", "addopts="]
    command += ["-p", "no:cacheprovider", "--rootdir", str(lesson.root), str(lesson.notebook)]
    env = lessons.kernel_environment(lesson.root, folder / "strict")
    ok, text = call(*command, env=env, root=lesson.root)
    return call(*command, env=env, root=lesson.root) if run_lessons.UNBORN in text else (ok, text)


def smoke(lesson: Lesson, folder: Path) -> tuple[bool, str]:
    """Run a lesson at its smallest."""
    result = run_lessons.run(lesson, folder, TINY)
    return result == "ok", result


def make_jobs(folder: Path) -> dict[str, Callable[[], tuple[bool, str]]]:
    """All that runs side by side, longest first: by the steps of training, then tests."""

    def steps(lesson: Lesson) -> int:
        found = lessons.parameters(lesson.read())
        return found.get("STEPS", 0) * found.get("EPOCHS", 1)

    found = sorted(lessons.runnable(lessons.find(ROOT)), key=steps, reverse=True)
    files = sorted(ROOT.glob("tests/test_*.py"))
    shards = {f"{i + 1} of 4": files[i::4] for i in range(4)}
    return {
        **{f"compare {x.name}": lambda x=x: strict(x, folder) for x in found},
        **{f"tests, {name}": lambda x=x: tests(x) for name, x in shards.items()},
        **{f"smoke {x.name}": lambda x=x: smoke(x, folder) for x in found},
    }


def timed(job: Callable[[], tuple[bool, str]]) -> tuple[float, bool, str]:
    """Run a job; seconds, whether it succeeded, and what it wrote."""
    start = time.monotonic()
    ok, text = job()
    return time.monotonic() - start, ok, text


def report(name: str, seconds: float, ok: bool, text: str) -> tuple[float, str]:
    """Print what a job wrote, all of it if it failed; return its row of the table."""
    last = text.splitlines()[-1] if text else ""
    print(f"{name}: {'ok' if ok else 'FAILED'}  {seconds:.0f} s  {last}", flush=True)
    if not ok:
        print(f"{text}\n", flush=True)
    return seconds, "ok" if ok else "FAILED"


def main() -> int:
    """Run everything and print the table; 1 if anything failed."""
    start, before = time.monotonic(), repository_state()
    folder = lessons.numbered_folder(ROOT / "build" / "test")
    rows = {"style": report("style", *timed(style))}
    jobs = make_jobs(folder)
    with ThreadPoolExecutor(2) as pool:
        running = {pool.submit(timed, job): name for name, job in jobs.items()}
        try:
            for done in as_completed(running):
                rows[running[done]] = report(running[done], *done.result())
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    unchanged = repository_state() == before
    rows["nothing changed"] = (0.0, "ok" if unchanged else "FAILED: see `git status`")
    run_lessons.print_table("job", rows)
    failed = sum(result != "ok" for _, result in rows.values())
    print(f"{failed} failed, {len(rows) - failed} passed in {time.monotonic() - start:.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
