"""Make a trained network the finished one of its kind: `make publish RUN=build/train/ctc-...`.

Writes models/ctc.keras (or cnn, pytorch), its log, its results and the captchas that it read wrong,
if the network reads more of the judge's captchas than the one there, and the tables in the READMEs:
results, each lesson's minutes and badges. Without RUN it writes the tables alone (`make table`).
"""

import argparse
import json
import re
from pathlib import Path

import pandas as pd
from nbformat import NotebookNode

from captcha_reader import scores, weights
from captcha_reader.practice import EPOCH
from tools import lessons, options, runs
from tools.evaluate import FINISHED, reader
from tools.lessons import Lesson

FOUR = ("classic-1k", "classic-10k", "classic-100k", "modern-10k", "default-10k", "preview-10k")
SETS = {  # what is counted; the last decides which of two networks is the finished one
    "cnn": (*FOUR, "judge-classic-10k"),
    "ctc": (*FOUR, "sizes-10k", "nothing-1k", "judge-20k"),
    "pytorch": ("wide-1k", "wide-10k", "judge-wide-10k"),
}
LOG = ["epoch", "pictures", "seconds", "loss", "val_loss", "val_acc", "val_sizes"]
BEGIN, END = "<!-- from models/*.json by `make table` -->", "<!-- end of the table -->"
READMES = {  # the words of the results in each language
    "README.md": {
        "head": "read right of | the four heads | CTC",
        "parameters": "parameters",
        "pictures": "captchas of training",
        "hours": "hours ({cpu})",
        "command": "command",
        "pytorch": "Lesson 7's network in PyTorch reads wider captchas, 192x64, another task: "
        "{score} of `wide-10k`, after {pictures:,} captchas (`{command}`).",
    },
    "README.zh.md": {
        "head": "读对的比例 | 四个 softmax 输出头 | CTC",
        "parameters": "参数量",
        "pictures": "训练样本",
        "hours": "训练时长（小时，{cpu}）",
        "command": "命令",
        "pytorch": "第 7 课的 PyTorch 网络读的是更宽的 192x64 验证码，与上表不是同一个任务："
        "用 {pictures:,} 张训练后（`{command}`），在 `wide-10k` 上为 {score}。",
    },
}
# A lesson in the README: its link, badges, what there is at the end, minutes.
ROW = re.compile(r"^(\| \[.*?\]\(notebooks/(\w+)\.ipynb\))[^|]*( \|.*\| )\d+ \|$", re.M)
BADGES = (
    "<br>[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    "(https://colab.research.google.com/github/{0}) "
    "[![nbviewer](https://raw.githubusercontent.com/jupyter/design/main/logos/Badges/"
    "nbviewer_badge.svg)](https://nbviewer.org/github/{0})"
)


def share(score: dict) -> str:
    """Write a score as the table shows it: "98.43 % (98.35 – 98.51)"."""
    low, high = (100 * end for end in score["interval"])
    return f"{100 * score['right'] / score['n']:.2f} % ({low:.2f} – {high:.2f})"


def table(root: Path, words: dict) -> str:
    """Return the table of the finished networks in `root`/models, a row for each test set."""
    results = {name: weights.read_results(name, root / "models") for name in SETS}
    pair = [results["cnn"], results["ctc"]]
    rows = [words["head"].split(" | "), ["---"] * 3]
    for test_set in SETS["ctc"][2:-1]:
        cells = [network["scores"].get(test_set) for network in pair]
        rows.append([f"`{test_set}`", *(share(cell) if cell else "" for cell in cells)])
    for name in ("parameters", "pictures"):
        rows.append([words[name], *(f"{network[name]:,}" for network in pair)])
    hours = words["hours"].format(cpu=f"{pair[1]['cores']} cores, {pair[1]['device']}")
    rows.append([hours, *(f"{network['seconds'] / 3600:.1f}" for network in pair)])
    rows.append([words["command"], *(f"`{network['command']}`" for network in pair)])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    pytorch = results["pytorch"]
    sentence = words["pytorch"].format(score=share(pytorch["scores"]["wide-10k"]), **pytorch)
    return "\n".join([*lines, "", sentence])


def minutes(notebook: NotebookNode) -> int:
    """Return minutes in fives: 200 words a minute, 8 seconds for a line of code."""
    text = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    cells = [x for _, x in lessons.code_cells(notebook) if lessons.COLAB not in lessons.tags(x)]
    lines = [line for cell in cells for line in cell.source.splitlines() if line.strip()]
    return 5 * round((len(" ".join(text).split()) / 200 + len(lines) * 8 / 60) / 5)


def badges(lesson: Lesson) -> str:
    """Return links that open a lesson elsewhere, or nothing without an address."""
    if not lessons.has_address(lesson.root):
        return ""
    address = lessons.address(lesson.root)
    return BADGES.format(f"{address.removeprefix('https://github.com/')}/blob/main/{lesson}")


def with_tables(text: str, root: Path, words: dict) -> str:
    """Return a README with the results between its two marks, badges and minutes of lessons."""

    def row(old: re.Match) -> str:
        lesson = Lesson(root, old[2])
        return f"{old[1]}{badges(lesson)}{old[3]}{minutes(lesson.read())} |"

    before, rest = text.split(BEGIN)
    text = f"{before}{BEGIN}\n{table(root, words)}\n{END}{rest.split(END)[1]}"
    return ROW.sub(row, text)


def publish(run: Path, root: Path) -> bool:
    """Make the network of a run the finished one of its kind in `root`; False if not better.

    Raises:
        ValueError: the folder holds no finished run of `make train`, or other weights.
    """
    try:
        results = json.loads((run / runs.RESULTS).read_text("utf-8"))
        settings, total, weights_hash = (results[x] for x in ("settings", "pictures", "sha256"))
        name, size, batch = (settings[x] for x in ("model", "size", "batch"))
        (*test_sets, judge), suffix = SETS[name], FINISHED[name]
    except (OSError, KeyError, TypeError, ValueError) as error:
        message = f"{run} holds no finished run of `make train` ({error!r}): RUN= wants its folder"
        raise ValueError(message) from error
    home, model = root / "models" / f"{name}.json", run / f"model{suffix}"
    weights.check_weights(model, weights_hash)
    read = reader(model, size)
    judged = scores.evaluate(read, judge).record()
    old = json.loads(home.read_text("utf-8"))["scores"] if home.exists() else {}
    if earlier := old.get(judge):
        print(f"{home.name} has {earlier['right']:,} of {judge}, this network {judged['right']:,}")
        if judged["right"] <= earlier["right"]:
            return False
    counts = {x: scores.evaluate(read, x) for x in test_sets}
    records = {x: score.record() for x, score in counts.items()}
    results |= {"scores": records | {judge: judged}, "bytes": model.stat().st_size}
    log = pd.read_csv(run / "log.csv").drop_duplicates("epoch", keep="last")
    log["pictures"] = ((log.epoch + 1) * (EPOCH // batch) * batch).clip(upper=total)
    log["seconds"] = log.seconds.cumsum().round(1)
    lessons.write(home.with_suffix(suffix), model.read_bytes())
    lessons.write(home.with_suffix(".csv"), log.filter(LOG).to_csv(index=False))
    if "classic-100k" in counts:  # lesson 6 looks at all of them
        weights.write_errors(home.with_name(f"{name}_errors.csv"), counts["classic-100k"].wrong)
    runs.write_json(home, results)
    return True


def main() -> int:
    """Publish a run, if one is given, and write the tables; return 1 if it is not better."""
    parser = options.parser("publish", "Make a trained network the finished one, if it is better.")
    unset = argparse.SUPPRESS
    parser.add_argument("--run", type=Path, default=unset, help="a folder of make train")
    given, root = parser.parse_args(), lessons.ROOT
    if "run" in given:
        if not publish(given.run, root):
            print("publish: not better, so everything stays as it is")
            return 1
        print("next: make export, and make refresh for the lessons that read models/")
    for name, words in READMES.items():
        text = (root / name).read_text("utf-8")
        changed = lessons.write(root / name, with_tables(text, root, words))
        print(name, "changed" if changed else "is up to date")
    return 0


if __name__ == "__main__":
    runs.end_with(main)
