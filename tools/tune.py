"""Teach a network captchas of your own: `make tune FOLDER=my_captchas`.

The folder holds labelled pictures, as `captcha_reader.folders.read_folder` describes. A fifth of
the texts is held out, and counted at the end. The same command goes on where it was stopped.
"""

import argparse
import hashlib
import json
import shlex
import time
import warnings
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from captcha_reader.folders import picture_files, read_folder, split
from captcha_reader.outputs import show_captchas
from captcha_reader.reading import scale
from captcha_reader.scores import share, wilson
from captcha_reader.texts import HEIGHT
from captcha_reader.weights import describe, description, find, sha256
from tools import options, runs
from tools.train import captchas_or_minutes, count_steps, seconds_a_step

BATCH = 32  # pictures in a batch
COLUMN, WIDEST = 8, 320  # pixels of a picture for each column of the network, and at most


def read_options(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options of a command line."""
    parser = options.parser("tune", "Teach a network captchas of your own, from a folder.")
    add = parser.add_argument
    add("--folder", type=Path, required=True, default=argparse.SUPPRESS, help="labelled pictures")
    add("--pattern", help="where the text stands in their names, as in '*_{text}'")
    add("--from", dest="start", default="ctc", help="ctc, nothing, or the path of a .keras file")
    add("--seed", default=2019, type=options.whole, help="decides what is held out, and all else")
    add("--budget", type=captchas_or_minutes, help="pictures, or minutes as in 5min; as many as "
        "usually help, if it is not given")  # fmt: skip
    add("--out", type=Path, default=argparse.SUPPRESS, help="a folder; it is in build/train if not")
    arguments = parser.parse_args(words)
    if arguments.start not in ("ctc", "nothing") and not Path(arguments.start).is_file():
        parser.error(f"--from={arguments.start} is neither ctc nor nothing, nor a .keras file")
    return arguments


def usual_steps(count: int) -> int:
    """Return how many batches help with so many pictures: twice, if there are four times more."""
    return round(600 * (count / 200) ** 0.5)


def read_all(folder: Path, pattern: str | None) -> tuple[np.ndarray, list[str]]:
    """Read a folder, say what it holds, and bring its pictures to one width."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        pictures, texts = read_folder(folder, pattern=pattern)
    characters, lengths = Counter("".join(texts)), Counter(map(len, texts))
    sizes = Counter("{}x{}".format(*Image.open(path).size) for path in picture_files(folder))
    width = common_width(pictures, texts)
    print(f"{folder}: {len(texts):,} pictures with {len(set(texts)):,} different texts")
    print(f"  characters  {''.join(sorted(characters))}  ({len(characters)})")
    print(f"  lengths     {listed(lengths)}")
    print(f"  sizes       {listed(sizes)}; {width}x{HEIGHT} for the network")
    if seldom := [character for character, count in characters.items() if count < 3]:
        print(f"  seldom      {' '.join(sorted(seldom))}  (a slip of the pen?)")
    for note in notes:
        print(f"  note        {note.message}")
    return np.concatenate([scale(picture[None], width) for picture in pictures]), texts


def listed(counts: Counter, most: int = 5) -> str:
    """Write the most frequent of some things with their counts."""
    names = [f"{name} ({count:,})" for name, count in counts.most_common(most)]
    return ", ".join(names + ["..."] * (len(counts) > most))


def common_width(pictures: list[np.ndarray], texts: list[str]) -> int:
    """Return the width that suits most of the pictures and has columns for each text.

    Raises:
        ValueError: a text has too many characters for the widest of pictures.
    """

    def columns(text: str) -> int:
        return len(text) + sum(a == b for a, b in pairwise(text))  # a blank between equal ones

    longest = max(texts, key=columns)
    if columns(longest) * COLUMN > WIDEST:
        raise ValueError(f"{longest!r} needs {columns(longest)} columns, with one between equal "
                         f"neighbours; the network has at most {WIDEST // COLUMN}")  # fmt: skip
    usual = sorted(picture.shape[1] for picture in pictures)[len(pictures) // 2]
    return max(usual, columns(longest) * COLUMN)


def first_network(start: str, alphabet: str, seed: int):
    """Return the network to begin with: new, or finished and changed to the alphabet."""
    import keras

    from notebooks_py import ch4_gpu_training as ch4
    from notebooks_py.ch8_own_captchas import with_alphabet

    keras.utils.set_random_seed(seed)
    if start == "nothing":
        return ch4.build_ctc(len(alphabet), **ch4.SLIM)
    model = keras.models.load_model(start, compile=False)
    known = description(start)["alphabet"]
    if model.name != "ctc" or model.output_shape[-1] != len(known) + 1:
        raise ValueError(f"{start} is no CTC network for the characters {known}")
    return with_alphabet(model, known, alphabet)


def tell(folder: Path, out: Path, pictures: np.ndarray, texts: list[str], answers: list[str]):
    """Print what is read right and what is not; draw five of the latter."""
    wrong = [i for i, text in enumerate(texts) if answers[i] != text]
    print(f"read right: {share(len(texts) - len(wrong), len(texts))} of the held-out pictures")
    if not wrong:
        return
    equal = [i for i in wrong if len(answers[i]) == len(texts[i])]
    pairs = [pair for i in equal for pair in zip(texts[i], answers[i], strict=True)]
    confused = Counter(f"{a} read as {b}" for a, b in pairs if a != b)
    confused["another length"] = len(wrong) - len(equal)
    print(f"what went wrong: {listed(+confused, 8)}")
    five = [list(x[i] for i in wrong[:5]) for x in (pictures, texts, answers)]
    show_captchas(*five, columns=5).savefig(out / "wrong.png")
    print(f"{len(five[0])} of them: {out / 'wrong.png'}")


def tune(arguments: argparse.Namespace, pictures, texts: list[str], out: Path, open_run) -> None:
    """Train, count, and write mine.keras, mine.onnx and the record of the run."""
    with options.quietly():
        import keras
    import matplotlib

    from captcha_reader.training import check_backup
    from notebooks_py import ch8_own_captchas as ch8
    from notebooks_py.ch3_ctc import read_ctc

    matplotlib.use("Agg")  # no window
    alphabet, seed = "".join(sorted(set().union(*texts))), arguments.seed
    learn, test = split(texts, seed=seed)
    known, truth = [texts[i] for i in learn], [texts[i] for i in test]
    data = ch8.own_captchas(pictures[learn], known, alphabet, seed)

    def seconds() -> float:
        model = first_network(arguments.start, alphabet, seed)
        ch8.compile_recipe(model, 1_000)
        return seconds_a_step(model, data)

    record = open_run(len(learn), seconds)
    check_backup(out / "backup")
    model = first_network(arguments.start, alphabet, seed)
    print(f"{len(learn):,} pictures to learn from, {len(test):,} held out; {record['steps']:,} "
          f"batches of {BATCH}, in {out}", flush=True)  # fmt: skip
    ch8.fine_tune(model, data, record["steps"], out)
    bare = type(model).from_config(model.get_config())  # without the optimizer's memory
    bare.set_weights(model.get_weights())
    bare.save(mine := out / "mine.keras")
    describe(mine, alphabet, pictures.shape[2])
    answers = []
    for start in range(0, len(test), 100):
        answers += read_ctc(bare, pictures[test[start : start + 100]], alphabet)
    tell(arguments.folder, out, pictures[test], truth, answers)
    right = sum(a == b for a, b in zip(answers, truth, strict=True))
    score = {"n": len(test), "right": right, "interval": wilson(right, len(test))}
    device = keras.distribution.list_devices()[0].split(":")[0].upper()
    record |= {"alphabet": alphabet, **score, "device": device, "sha256": sha256(mine)}
    runs.write_json(out / runs.RESULTS, record)
    print(f"written: {mine}")


def main() -> int:
    """Look at the folder, train, and say what to type next."""
    began = time.perf_counter()
    arguments = read_options()
    folder, start = arguments.folder, arguments.start
    pictures, texts = read_all(folder, arguments.pattern)
    split(texts)  # raises an error if all texts are the same
    arguments.start = find("ctc.keras") if start == "ctc" else start
    settings = {"folder": folder.resolve().name, "from": start, "seed": arguments.seed}
    settings |= {"budget": arguments.budget, "pattern": arguments.pattern}
    content = pictures.tobytes() + json.dumps(texts).encode()
    settings["content"] = hashlib.sha256(content).hexdigest()
    if start != "nothing":
        settings["start"] = sha256(Path(arguments.start))
    name = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]
    out = getattr(arguments, "out", Path("build/train", f"tune-{settings['folder']}-{name}"))
    words = {"FOLDER": folder, "PATTERN": arguments.pattern, "FROM": start}
    words |= {"SEED": arguments.seed, "BUDGET": arguments.budget}
    typed = [f"{name}={shlex.quote(str(value))}" for name, value in words.items() if value]

    def open_run(known: int, seconds) -> dict:
        budget = settings | {"batch": BATCH}
        budget["budget"] = settings["budget"] or usual_steps(known) * BATCH
        count = lambda: count_steps(budget, began, seconds)  # noqa: E731
        return runs.open_run(out, settings, " ".join(["make tune", *typed]), count)

    with runs.locked(out):
        tune(arguments, pictures, texts, out, open_run)
    try:
        from tools.export import export
    except ModuleNotFoundError:
        print(f"next: make setup-onnx, make export MODEL={shlex.quote(str(out / 'mine.keras'))}")
        return 0
    (out / "mine.onnx").write_bytes(export(out / "mine.keras"))
    picture, network = (shlex.quote(str(x)) for x in (picture_files(folder)[0], out / "mine.onnx"))
    print(f"written: {out / 'mine.onnx'}\nnext: make read FILE={picture} MODEL={network}")
    return 0


if __name__ == "__main__":
    runs.end_with(main)
