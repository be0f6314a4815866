"""Make a trained network the finished one of its kind: `make publish RUN=build/train/ctc-slim`.

Writes models/ctc.keras (or cnn), its log and its results, if the network is better than the one
there, and the tables in the READMEs: results, and each lesson's minutes and badges. Without RUN it
writes the tables alone (`make table`).
"""

import json
import re
import sys
from pathlib import Path

import lessons
import options
import pandas as pd
from lessons import Lesson
from nbformat import NotebookNode

from captcha_reader import scores
from captcha_reader.weights import check_weights

DEFAULTS = {"RUN": ""}
SETS = ("classic-1k", "classic-10k", "classic-100k", "modern-10k", "preview-10k")
WIDE = ("wide-1k", "wide-10k")  # what the network of lesson 7 reads
JUDGES = ("classic-100k", "wide-10k")  # the set that decides which of two networks is better
LOG = ["epoch", "run", "pictures", "seconds", "loss", "val_loss", "val_acc"]
MADE = ("settings", "start", "pictures", "seconds", "device", "cpu", "cores", "backend", "python",
        "versions", "sha256")  # fmt: skip
BEGIN, END = "<!-- from models/*.json by `make table` -->", "<!-- end of the table -->"
MODELS, TWIN = ("cnn", "ctc"), "ctc_pytorch"
MARKS = {"cnn": 0.9826, "ctc": 0.9921, TWIN: 0.9957}  # what the original reports
READMES = {  # the words of the results in each language
    "README.md": {
        "head": "model | parameters | trained on | hours",
        "cnn": "CNN with four softmax heads, {size}",
        "ctc": "CNN and CTC, {size}",
        "pictures": "{pictures:,} captchas",
        "further": "{before:,} captchas with CTC, then {own:,}",
        "share": "{share:.2f} % ({low:.2f} to {high:.2f})",
        "above": ", above the original's mark",
        "twin": "Lesson 7's network in PyTorch reads wider captchas, 192x64, another task: {score} "
        "of `wide-10k`. It began with the weights that the CTC network had after {before:,} "
        "captchas, and was trained on {own:,} wide ones, for {own_hours:.1f} hours ({device}).",
    },
    "README.zh.md": {
        "head": "模型 | 参数量 | 训练样本 | 训练时长（小时）",
        "cnn": "CNN，四个 softmax 输出头，{size}",
        "ctc": "CNN + CTC，{size}",
        "pictures": "{pictures:,} 张",
        "further": "先以 CTC 训练 {before:,} 张，再训练 {own:,} 张",
        "share": "{share:.2f} %（{low:.2f} 至 {high:.2f}）",
        "above": "，高于原教程",
        "twin": "第 7 课的 PyTorch 网络读的是更宽的 192x64 验证码，与上表不是同一个任务："
        "在 `wide-10k` 上为 {score}。它从 CTC 网络训练 {before:,} 张之后的权重开始，"
        "再用 {own:,} 张宽验证码训练 {own_hours:.1f} 小时（{device}）。",
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


def history(run: Path, home: Path) -> tuple[list[dict], pd.DataFrame]:
    """Return all runs that led to the network of a run, and one log of them.

    What it started from is a finished network beside `home` (a results file), or an earlier run.
    """
    results = json.loads((run / "results.json").read_text("utf-8"))
    log = pd.read_csv(run / "log.csv").drop_duplicates("epoch", keep="last")
    log["run"], log["seconds"] = 1, log.seconds.cumsum()
    log["pictures"] = (log.epoch + 1) * results["pictures"] // len(log)
    if results["start"] is None:
        return [results], log[LOG]
    for found in sorted(home.parent.glob("*.json")):
        current = json.loads(found.read_text("utf-8"))
        if current.get("sha256") == results["start"]:
            runs, before = current["runs"], pd.read_csv(found.with_suffix(".csv"))
            break
    else:
        runs, before = history(Path(results["settings"]["START"]).parent, home)
        if runs[-1]["sha256"] != results["start"]:
            raise ValueError(f"{run} did not start from what {results['settings']['START']} is now")
    last = before.iloc[-1]
    log["epoch"] += last.epoch + 1
    for column in ("run", "pictures", "seconds"):
        log[column] += last[column]
    log = log.astype({"epoch": int, "run": int, "pictures": int}).round({"seconds": 1})
    return [*runs, results], pd.concat([before[LOG], log[LOG]])


def share(score: dict, words: dict) -> str:
    """A score as the table shows it."""
    low, high = (100 * end for end in score["interval"])
    return words["share"].format(share=100 * score["right"] / score["n"], low=low, high=high)


def table(root: Path, words: dict) -> str:
    """Return the table of the finished networks in `root`/models."""
    sets = SETS[1:]
    lines = [f"| {words['head']} | `{'` | `'.join(sets)}` |", "| --- " * (4 + len(sets)) + "|"]
    for name in (*MODELS, TWIN):
        if not (path := root / "models" / f"{name}.json").exists():
            continue
        found = json.loads(path.read_text("utf-8"))
        kind = found["runs"][-1]["settings"]["MODEL"]
        runs = [run for run in found["runs"] if run["settings"]["MODEL"] == kind]
        own = sum(run["pictures"] for run in runs)
        found |= {
            "hours": found["seconds"] / 3600,
            "device": runs[-1]["device"],
            "own": own,
            "before": found["pictures"] - own,
            "own_hours": sum(run["seconds"] for run in runs) / 3600,
        }
        shares = {test_set: share(score, words) for test_set, score in found["scores"].items()}
        judge = JUDGES[name == TWIN]
        shares[judge] += words["above"] * (found["scores"][judge]["interval"][0] > MARKS[name])
        if name == TWIN:
            lines += ["", words["twin"].format(score=shares["wide-10k"], **found)]
            continue
        pictures = words["further" if found["before"] else "pictures"]
        cells = [words[name], "{parameters:,}", pictures, "{hours:.1f} ({device})"]
        cells = [cell.format(**found) for cell in cells] + [shares[test_set] for test_set in sets]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def minutes(notebook: NotebookNode) -> int:
    """How long a lesson takes: 200 words a minute, 8 seconds for a line of code, in fives."""
    text = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    cells = [x for _, x in lessons.code_cells(notebook) if lessons.COLAB not in lessons.tags(x)]
    lines = [line for cell in cells for line in cell.source.splitlines() if line.strip()]
    return 5 * round((len(" ".join(text).split()) / 200 + len(lines) * 8 / 60) / 5)


def badges(lesson: Lesson) -> str:
    """Links that open a lesson elsewhere; nothing as long as the repository has no address."""
    address = lessons.address(lesson.root)
    if "YOUR_NAME" in address:
        return ""
    return BADGES.format(f"{address.removeprefix('https://github.com/')}/blob/main/{lesson}")


def with_rows(text: str, root: Path) -> str:
    """Return a README with badges and minutes in the rows of its lessons."""
    for row in ROW.finditer(text):
        lesson = Lesson(root, row[2])
        new = f"{row[1]}{badges(lesson)}{row[3]}{minutes(lesson.read())} |"
        text = text.replace(row[0], new)
    return text


def with_tables(name: str, root: Path) -> str:
    """Return a README with the results between its two marks, and the rows of its lessons."""
    before, rest = (root / name).read_text("utf-8").split(BEGIN)
    _, after = rest.split(END)
    return with_rows(f"{before}{BEGIN}\n{table(root, READMES[name])}\n{END}{after}", root)


def publish(run: Path, root: Path) -> bool:
    """Make the network of a run the finished one of its kind in `root`; False if not better."""
    results = json.loads((run / "results.json").read_text("utf-8"))
    home = root / "models" / f"{results['model']}.json"
    runs, log = history(run, home)
    from evaluate import FINISHED, reader  # brings TensorFlow

    sets, suffix = WIDE if results["model"] == TWIN else SETS, FINISHED[results["model"]]
    weights = check_weights(run / f"model{suffix}", results["sha256"])
    read, found = reader(weights, results["size"]), {}
    for name in sorted(sets, key=lambda name: name not in JUDGES):
        found[name] = scores.evaluate(read, name).record()
        if name in JUDGES and home.exists():
            old = json.loads(home.read_text("utf-8"))["scores"][name]["right"]
            print(f"{home.name} has {old:,} of {name}, this network {found[name]['right']:,}")
            if found[name]["right"] <= old:
                return False
    told = {name: results[name] for name in ("model", "size", "parameters", "sha256")}
    told |= {name: sum(run[name] for run in runs) for name in ("pictures", "seconds")}
    told |= {"scores": {name: found[name] for name in sets}, "bytes": weights.stat().st_size}
    told["runs"] = [{name: run.get(name) for name in MADE} for run in runs]
    lessons.write(home.with_suffix(suffix), weights.read_bytes())
    lessons.write(home.with_suffix(".csv"), log.to_csv(index=False))
    lessons.write(home, json.dumps(told, indent=1) + "\n")
    return True


def main() -> int:
    """Publish a run, if one is given, and write the tables; 1 if it is not better."""
    chosen = options.read(sys.argv[1:], "publish", DEFAULTS, {})
    if chosen["RUN"]:
        try:
            better = publish(Path(chosen["RUN"]), lessons.ROOT)
        except (OSError, ValueError, RuntimeError) as error:
            raise SystemExit(f"publish: {error}") from error
        if not better:
            print("publish: not better, so everything stays as it is")
            return 1
        print("next: make export, and make refresh for the lessons that read models/")
    for name in READMES:
        changed = lessons.write(lessons.ROOT / name, with_tables(name, lessons.ROOT))
        print(name, "changed" if changed else "is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
