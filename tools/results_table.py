"""The results table of the README, made from models/*.json: `make table`."""

import json
import sys
from pathlib import Path

import lessons

BEGIN = "<!-- from models/*.json by `make table` -->"
END = "<!-- end of the table -->"
NAMES = {"cnn": "CNN with four softmax heads", "ctc": "CNN and CTC"}
SETS = {
    "classic-10k": "`classic-10k`",
    "classic-100k": "`classic-100k`",
    "modern-10k": "`modern-10k`",
    "preview-10k": "`preview-10k`",
}


def share(score: dict) -> str:
    """A score as the table shows it."""
    low, high = (f"{100 * end:.2f}" for end in score["interval"])
    return f"{100 * score['right'] / score['n']:.2f} % ({low} to {high})"


def table(root: Path) -> str:
    """Return the table of the finished networks in `root`/models."""
    lines = [
        f"| model | parameters | trained on | hours | {' | '.join(SETS.values())} |",
        "| --- " * (4 + len(SETS)) + "|",
    ]
    for name, title in NAMES.items():
        path = root / "models" / f"{name}.json"
        if path.exists():
            found = json.loads(path.read_text(encoding="utf-8"))
            cells = [
                f"{title}, {found['size']}",
                f"{found['parameters']:,}",
                f"{found['pictures']:,} captchas",
                f"{found['seconds'] / 3600:.1f} ({found['runs'][-1]['device']})",
                *(share(found["scores"][test_set]) for test_set in SETS),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def with_table(readme: str, root: Path) -> str:
    """Return the text of a README with the table between its two marks.

    Raises:
        ValueError: the marks are missing.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"README.md needs the lines {BEGIN!r} and {END!r} around its results")
    return f"{before}{BEGIN}\n{table(root)}\n{END}{after}"


def write(root: Path = lessons.ROOT) -> bool:
    """Write the table into the README; whether that changed anything."""
    path = root / "README.md"
    new = with_table(path.read_text(encoding="utf-8"), root)
    return lessons.write(path, new.encode())


if __name__ == "__main__":
    print("README.md changed" if write() else "README.md is up to date")
    sys.exit(0)
