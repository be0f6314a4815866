"""Everything that CI checks: `make test`, or what concerns one lesson: `make test LESSON=ch3_ctc`.

Style first. Then two jobs at a time, long ones first: each lesson's committed notebook is run again
and compared to the letter, the tests, and each lesson once more at its smallest. All jobs run, also
after one that failed; the table at the end and the exit status say which. Counts of what passed
follow, from the reports that pytest writes; a test adds one with `record_property(what, number)`.
"""

import argparse
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from xml.etree import ElementTree

import lessons
import run_lessons
from lessons import ROOT, Lesson

TINY = {"STEPS": 2, "EPOCHS": 1}


def repository_state() -> str:
    """What git sees of the working tree; nothing outside a git checkout."""
    commands = (["status", "--porcelain"], ["diff", "HEAD"])
    calls = (["git", "-C", str(ROOT), *command] for command in commands)
    return "\n".join(subprocess.run(c, capture_output=True, encoding="utf-8").stdout for c in calls)


def call(*command: str, env: dict | None = None, root: Path = ROOT) -> tuple[bool, str]:
    """Run a Python command in the repository; whether it succeeded, and what it wrote."""
    result = subprocess.run(
        [sys.executable, *command],
        cwd=root,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    return result.returncode == 0, result.stdout.strip()


def style() -> tuple[bool, str]:
    """Check style and layout of all code, and the rules for lessons that need no run."""
    commands = (("-m", "ruff", "check", "."), ("-m", "ruff", "format", "--check", "."))
    results = [call(*command) for command in (*commands, ("tools/gates.py",))]
    return all(ok for ok, _ in results), "\n".join(text for _, text in results)


def tests(files: list[Path], report: Path) -> tuple[bool, str]:
    """Run some of the tests."""
    command = ["-m", "pytest", "-p", "no:cacheprovider", "--color=no", f"--junitxml={report}"]
    command += ["-o", "junit_family=xunit1"]  # the one with properties
    return call(*command, *map(str, files))


def strict(lesson: Lesson, folder: Path) -> tuple[bool, str]:
    """Run a committed notebook with nbval: the same text, and nearly the same pictures."""
    command = [str(ROOT / "tools" / "compare.py"), "--nbval", "-q", "-rfE", "--color=no"]
    command += ["-o", "addopts="]
    command += ["-p", "no:cacheprovider", "--rootdir", str(lesson.root), str(lesson.notebook)]
    command += [f"--junitxml={folder / f'compare-{lesson.name}.xml'}"]
    env = lessons.kernel_environment(lesson.root, folder / "strict")
    ok, text = call(*command, env=env, root=lesson.root)
    return call(*command, env=env, root=lesson.root) if run_lessons.UNBORN in text else (ok, text)


def smoke(lesson: Lesson, folder: Path) -> tuple[bool, str]:
    """Run a lesson at its smallest."""
    result = run_lessons.run(lesson, folder, TINY)
    return result == "ok", result


def make_jobs(
    folder: Path, found: list[Lesson], files: list[Path]
) -> dict[str, Callable[[], tuple[bool, str]]]:
    """All that runs side by side, longest first: by the steps of training, then tests."""

    def steps(lesson: Lesson) -> int:
        found = lessons.parameters(lesson.read())
        return found.get("STEPS", 0) * found.get("EPOCHS", 1)

    found = sorted(found, key=steps, reverse=True)
    parts = min(4, len(files))
    shards = {f"tests-{i + 1}-of-{parts}": files[i::parts] for i in range(parts)}
    return {
        **{f"compare {x.name}": lambda x=x: strict(x, folder) for x in found},
        **{x: lambda x=x: tests(shards[x], folder / f"{x}.xml") for x in shards},
        **{f"smoke {x.name}": lambda x=x: smoke(x, folder) for x in found},
    }


def timed(job: Callable[[], tuple[bool, str]]) -> tuple[float, bool, str]:
    """Run a job; seconds, whether it succeeded, and what it wrote."""
    start = time.monotonic()
    ok, text = job()
    return time.monotonic() - start, ok, text


def checked(folder: Path) -> Counter[str]:
    """Count what passed, from pytest's reports, and what tests say there that they confirmed."""
    counts = Counter()
    for path in sorted(folder.glob("*.xml")):
        comparison = path.name.startswith("compare")
        counts["lessons"] += comparison
        for case in ElementTree.parse(path).iter("testcase"):
            if {child.tag for child in case} & {"failure", "error", "skipped"}:
                continue
            counts["cells compared" if comparison else "tests passed"] += 1
            for found in case.iter("property"):
                counts[found.get("name")] += int(found.get("value"))
    return counts


def report(name: str, seconds: float, ok: bool, text: str) -> tuple[float, str]:
    """Print what a job wrote, all of it if it failed; return its row of the table."""
    last = text.splitlines()[-1] if text else ""
    print(f"{name}: {'ok' if ok else 'FAILED'}  {seconds:.0f} s  {last}", flush=True)
    if not ok:
        print(f"{text}\n", flush=True)
    return seconds, "ok" if ok else "FAILED"


def main(words: list[str] | None = None) -> int:
    """Run everything and print the table; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lesson", default="", help="the name of the lesson to check")
    only = parser.parse_args(words).lesson
    found = lessons.runnable(lessons.find(ROOT, only))
    if only and not found:
        return 1
    files = sorted(ROOT.glob("tests/test_*.py"))
    if only:
        files = [x for x in files if x.stem in {f"test_{lesson.name}" for lesson in found}]
    start, before = time.monotonic(), repository_state()
    folder = lessons.numbered_folder(ROOT / "build" / "test")
    rows = {"style": report("style", *timed(style))}
    jobs = make_jobs(folder, found, files)
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
    print()
    for what, count in checked(folder).items():
        print(f"{what:<20}{count:>7,}")
    print(f"{failed} failed, {len(rows) - failed} passed in {time.monotonic() - start:.0f} s")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
