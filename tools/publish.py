"""Make a trained network the finished one of its kind: `make publish RUN=build/train/ctc-...`.

Writes models/ctc.keras (or cnn, pytorch), its log, its results and the captchas that it read wrong,
and ctc.onnx, if the network reads more of the judge's captchas than the one there, and the tables
in the READMEs: results, and each lesson's minutes, which also stand under its title, and badges.
Without RUN it writes these alone (`make table`).
"""

import json
import re
from pathlib import Path

import pandas as pd
from nbformat import NotebookNode

from captcha_reader import scores, weights
from captcha_reader.practice import EPOCH
from captcha_reader.texts import ALPHABET, WIDTH
from tools import format, gates, lessons, options, runs
from tools.evaluate import FINISHED, reader
from tools.lessons import Lesson

FOUR = ("classic-1k", "classic-10k", "classic-100k", "modern-10k", "default-10k", "preview-10k")
SETS = {  # what is counted
    "cnn": FOUR,
    "ctc": (*FOUR, "sizes-10k", "nothing-1k"),
    "pytorch": ("wide-1k", "wide-10k"),
}
# What decides which of two networks is the finished one.
JUDGES = {"cnn": "judge-classic-10k", "ctc": "judge-20k", "pytorch": "judge-wide-10k"}
MARKS = {"cnn": "classic-100k", "ctc": "classic-100k", "pytorch": "wide-10k"}  # the original's
LOG = ["epoch", "pictures", "seconds", "loss", "val_loss", "val_acc", "val_sizes"]
BEGIN, END = "<!-- from models/*.json by `make table` -->\n", "\n<!-- end of the table -->"
BETWEEN = re.compile(f"(?<={re.escape(BEGIN)}).*?(?={re.escape(END)})", re.DOTALL)
READMES = ("README.md", "README.zh.md")
TEMPLATES = Path(__file__).parent / "tables"  # of the READMEs, each in its language
# A lesson in the README: its link, badges, what there is at the end, minutes.
ROW = re.compile(r"^(\| \[.*?\]\(notebooks/(\w+)\.ipynb\))[^|]*( \|.*\| )\d+ \|$", re.M)
PATH = re.compile(r"(?<=\*Lesson )(\d+) of \d+ · \d+(?= minutes)")  # under a lesson's title
BADGES = (
    "<br>[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{0}) "
    "[![nbviewer](https://raw.githubusercontent.com/jupyter/design/main/logos/Badges/"
    "nbviewer_badge.svg)](https://nbviewer.org/github/{0})"
)


def tables(root: Path, readme: str) -> list[str]:
    """Return the tables of a README, on the finished networks in `root`/models."""
    results = {name: weights.read_results(name, root / "models") for name in SETS}
    for network in results.values():
        network["hours"] = network["seconds"] / 3600

    def cell(name: str, test_set: str) -> str:
        """Write a score, "98.43 % (98.35 – 98.51)", or nothing if there is none."""
        if not (score := results[name]["scores"].get(test_set)):
            return ""
        low, high = (100 * end for end in scores.wilson(score["right"], score["n"]))
        return f"{100 * score['right'] / score['n']:.2f} % ({low:.2f} – {high:.2f})"

    marks = [cell(*pair).partition(" (")[0] for pair in MARKS.items()]
    shown = SETS["ctc"][SETS["ctc"].index("classic-100k") :]
    rows = [f"| `{x}` | {cell('cnn', x)} | {cell('ctc', x)} |" for x in shown]
    originals = [f"{percent:.2f} %" for percent in lessons.ORIGINAL.values()]
    filled = {"originals": " | ".join(originals), "marks": " | ".join(marks)}
    filled["sets"] = "\n".join(rows)
    filled["wide"] = cell("pytorch", "wide-10k")
    template = (TEMPLATES / readme).read_text("utf-8")
    return BETWEEN.findall(template.format(**filled, **results))


def minutes(notebook: NotebookNode) -> int:
    """Return minutes in fives: 200 words a minute, 8 seconds for a line of code."""
    text = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    code = [cell.source.splitlines() for _, cell in lessons.code_cells(notebook)]
    lines = [line for cell in code for line in cell if line.strip()]
    return 5 * round((len(" ".join(text).split()) / 200 + len(lines) * 8 / 60) / 5)


def with_tables(text: str, root: Path, readme: str) -> str:
    """Return the text of a README with its tables, and the badges and minutes of lessons."""

    def row(old: re.Match) -> str:
        lesson, address = Lesson(root, old[2]), lessons.address(root)
        address = address.removeprefix("https://github.com/")
        badges = BADGES.format(f"{address}/blob/main/{lesson}") if address else ""
        return f"{old[1]}{badges}{old[3]}{minutes(lesson.read())} |"

    made = iter(tables(root, readme))
    return ROW.sub(row, BETWEEN.sub(lambda _: next(made), text))


def with_path(lesson: Lesson) -> str:
    """Return the module of a lesson with the right count and minutes under its title."""
    last = len([*lesson.root.glob("notebooks_py/ch*.py")]) - 1  # the first is lesson 0
    path = rf"\1 of {last} · {minutes(lesson.read())}"
    return PATH.sub(path, lesson.module.read_text("utf-8"))


def publish(run: Path, root: Path) -> bool:
    """Make the network of a run the finished one of its kind in `root`; False if not better.

    Raises:
        ValueError: the folder holds no finished run of `make train`, or other weights.
    """
    try:
        results = json.loads((run / runs.RESULTS).read_text("utf-8"))
        name, size, batch = (results["settings"][x] for x in ("model", "size", "batch"))
        total, judge, suffix = results["pictures"], JUDGES[name], FINISHED[name]
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"{run} holds no finished run of `make train` ({error!r}): "
                         "RUN= wants its folder") from error  # fmt: skip
    home, model = root / "models" / f"{name}.json", run / f"model{suffix}"
    weights.check_weights(model, results["sha256"])
    if name == "ctc":  # before anything is written: one with a GRU can't be exported
        from tools import export

        export.export(model, ALPHABET)
    read = reader(model, size)
    judged = scores.evaluate(read, judge).record()
    old = json.loads(home.read_text("utf-8"))["scores"] if home.exists() else {}
    if earlier := old.get(judge):
        print(f"{home.name} has {earlier['right']:,} of {judge}, this network {judged['right']:,}")
        if judged["right"] <= earlier["right"]:
            return False
    counts = {x: scores.evaluate(read, x) for x in SETS[name]}
    log = runs.read_log(run)
    log["pictures"] = ((log.epoch + 1) * (EPOCH // batch) * batch).clip(upper=total)
    log["seconds"] = log.seconds.cumsum().round(1)
    lessons.write(final := home.with_suffix(suffix), model.read_bytes())
    if suffix == ".keras":
        weights.describe(final, ALPHABET, WIDTH if name == "cnn" else None)
    lessons.write(home.with_suffix(".csv"), log.filter(LOG).to_csv(index=False))
    if "classic-100k" in counts:  # lesson 6 looks at all of them
        wrong = pd.DataFrame(counts["classic-100k"].wrong, columns=["text", "answer"])
        lessons.write(home.with_name(f"{name}_errors.csv"), wrong.to_csv(index=False))
    records = {x: score.record() for x, score in counts.items()} | {judge: judged}
    file = {"sha256": weights.sha256(final), "bytes": final.stat().st_size}
    runs.write_json(home, results | {"scores": records} | file)
    if name == "ctc":
        export.main([f"--model={final}"])
    return True


def main() -> int:
    """Publish a run, if one is given, and write the tables; return 1 if it is not better."""
    parser = options.parser("publish", "Make a trained network the finished one, if it is better.")
    parser.add_argument("--run", type=options.path, help="a folder of make train")
    run, root = parser.parse_args().run, lessons.ROOT
    if differing := [*gates.sync(root)]:  # or the minutes would cost one side its edit
        raise ValueError("\n".join(differing))
    if run:
        if not publish(run, root):
            print("publish: not better, so everything stays as it is")
            return 1
        print("next: make refresh for the lessons that read models/")
    for name in READMES:
        text = (root / name).read_text("utf-8")
        changed = lessons.write(root / name, with_tables(text, root, name))
        print(name, "changed" if changed else "is up to date")
    for lesson in lessons.find(root):
        if lessons.write(lesson.module, with_path(lesson)):
            format.format_lessons({lesson: "py"})
    return 0


if __name__ == "__main__":
    options.end_with(main)
