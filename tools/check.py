"""Everything that CI checks: `make test`, or what concerns one lesson: `make test LESSON=ch3_ctc`.

Style first. Then two jobs at a time: each lesson's committed notebook is run again and compared to
the letter, the tests, and each lesson once more at its smallest. All jobs run, also after one that
failed. At the end it counts what passed; a test adds to that with `record_property(what, number)`.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import lessons
import run_lessons
from lessons import ROOT, Lesson, call, git

TINY = {"STEPS": 2, "EPOCHS": 1}
PYTEST = ("-p", "no:cacheprovider", "--color=no", "-o", "junit_family=xunit1")  # with properties
Job = Callable[[], tuple[bool, str]]  # says whether it succeeded, and what it wrote


def style() -> tuple[bool, str]:
    """Check style and layout of all code, and the rules for lessons that need no run."""
    commands = ("-m ruff check .", "-m ruff format --check .", "tools/gates.py")
    results = [call(*command.split()) for command in commands]
    return all(ok for ok, _ in results), "\n".join(text for _, text in results)


def tests(files: list[Path], report: Path) -> tuple[bool, str]:
    """Run some of the tests."""
    return call("-m", "pytest", *PYTEST, f"--junitxml={report}", *map(str, files))


def strict(lesson: Lesson, folder: Path) -> tuple[bool, str]:
    """Run a committed notebook with nbval: the same text, and nearly the same pictures."""
    command = [str(ROOT / "tools" / "compare.py"), "--nbval", "-q", "-rfE", *PYTEST]
    command += ["-o", "addopts=", "--rootdir", str(lesson.root), str(lesson.notebook)]
    command += [f"--junitxml={folder / f'compare-{lesson.name}.xml'}"]
    return call(*command, env=lessons.kernel_environment(lesson.root, folder / "strict"))


def smoke(lesson: Lesson, folder: Path) -> tuple[bool, str]:
    """Run a lesson at its smallest."""
    result = run_lessons.run(lesson, folder, TINY)
    return result == "ok", result


def make_jobs(folder: Path, found: list[Lesson], files: list[Path]) -> dict[str, Job]:
    """All that runs side by side: comparisons, then the tests, then the small runs."""
    parts = min(4, len(files))
    shards = {f"tests-{i + 1}-of-{parts}": files[i::parts] for i in range(parts)}
    return {
        **{f"compare {x.name}": partial(strict, x, folder) for x in found},
        **{x: partial(tests, shards[x], folder / f"{x}.xml") for x in shards},
        **{f"smoke {x.name}": partial(smoke, x, folder) for x in found},
    }


def run(name: str, job: Job) -> tuple[float, str]:
    """Run a job and print what it wrote, all of it if it failed; return its row of the table."""
    start = time.monotonic()
    ok, text = job()
    seconds, result = time.monotonic() - start, "ok" if ok else "FAILED"
    last = text.splitlines()[-1] if text else ""
    more = "" if ok else f"\n{text}\n"
    print(f"{name}: {result}  {seconds:.0f} s  {last}{more}", flush=True)
    return seconds, result


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
        files = [ROOT / "tests" / f"test_{lesson.name}.py" for lesson in found]
    start, before = time.monotonic(), git(ROOT, "status", "-vv")
    folder = lessons.numbered_folder(ROOT / "build" / "test")
    rows = {"style": run("style", style)}
    jobs = make_jobs(folder, found, files)
    with ThreadPoolExecutor(2) as pool:
        rows |= zip(jobs, pool.map(run, jobs, jobs.values()), strict=True)
    unchanged = git(ROOT, "status", "-vv") == before
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
