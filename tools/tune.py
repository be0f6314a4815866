"""Teach a network captchas of your own: `make tune FOLDER=my_captchas`.

The folder holds labelled pictures, as `captcha_reader.folders.read_folder` describes. A fifth of
the texts is held out, and counted at the end. The same command goes on where it was stopped.
"""

import argparse
import hashlib
import json
import os
import shlex
import shutil
import warnings
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from captcha_reader.folders import alphabet_of, picture_files, read_folder, split
from captcha_reader.outputs import show_captchas
from captcha_reader.reading import scale
from captcha_reader.scores import share, wilson
from captcha_reader.texts import ALPHABET, HEIGHT
from captcha_reader.weights import describe, description, find, sha256
from tools import options, runs
from tools.lessons import digest
from tools.train import captchas_or_minutes, seconds_a_step

BATCH = 32  # pictures in a batch
COLUMN, WIDEST = 8, 320  # pixels of a picture for each column of the network, and at most


def read_options(words: list[str] | None = None) -> argparse.Namespace:
    """Return the options of a command line."""
    parser = options.parser("tune", "Teach a network captchas of your own, from a folder.")
    add = parser.add_argument
    add("--folder", type=options.path, required=True, help="labelled pictures")
    add("--pattern", help="where the text stands in their names, as in '*_{text}'")
    add("--from", default="ctc", type=os.path.expanduser, help="ctc, nothing, or a .keras file")
    add("--seed", default=2019, type=options.whole, help="decides what is held out, and all else")
    add("--budget", type=captchas_or_minutes, help="pictures, or 5min; if missing, what suffices")
    add("--out", type=options.path, help="the run's folder; without it, one in build/train")
    arguments = parser.parse_args(words)
    start = getattr(arguments, "from")
    if start not in ("ctc", "nothing") and not (start.endswith(".keras") and os.path.isfile(start)):
        parser.error(f"--from={start} is neither ctc nor nothing, nor a .keras file")
    if isinstance(budget := arguments.budget, int) and budget < BATCH:
        parser.error(f"--budget={budget} is less than one batch of {BATCH} pictures; for minutes, "
                     f"write {budget}min")  # fmt: skip
    return arguments


def read_all(folder: Path, pattern: str | None) -> tuple[np.ndarray, list[str]]:
    """Read a folder, say what it holds, and bring its pictures to one width."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        pictures, texts = read_folder(folder, pattern=pattern)
    alphabet, lengths = alphabet_of(texts), Counter(map(len, texts))
    sizes = Counter("{}x{}".format(*Image.open(path).size) for path in picture_files(folder))
    width = common_width(pictures, texts)
    print(f"{folder}: {len(texts):,} pictures with {len(set(texts)):,} different texts")
    print(f"  characters  {alphabet}  ({len(alphabet)})")
    print(f"  lengths     {listed(lengths)}")
    print(f"  sizes       {listed(sizes)}; {width}x{HEIGHT} for the network")
    if seldom := [c for c in alphabet if sum(text.count(c) for text in texts) < 3]:
        print(f"  seldom      {' '.join(seldom)}  (typed by mistake?)")
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


def first_network(source: Path | None, alphabet: str, seed: int):
    """Return the network to begin with: a new one, or that of a file, changed to the alphabet."""
    import keras

    from notebooks_py import ch4_gpu_training as ch4
    from notebooks_py.ch8_own_captchas import with_alphabet

    keras.utils.set_random_seed(seed)
    if source is None:
        return ch4.build_ctc(len(alphabet), **ch4.SLIM)
    model = keras.models.load_model(source, compile=False)
    known = (description(source) or {}).get("alphabet", ALPHABET)
    return with_alphabet(model, known, alphabet)


def tell(out: Path, pictures: np.ndarray, texts: list[str], answers: list[str]) -> int:
    """Print what is read right and what is not; draw five errors; return how many are right."""
    wrong = [i for i, text in enumerate(texts) if answers[i] != text]
    right = len(texts) - len(wrong)
    print(f"read right: {share(right, len(texts))} of the held-out pictures")
    if not wrong:
        return right
    equal = [i for i in wrong if len(answers[i]) == len(texts[i])]
    pairs = [pair for i in equal for pair in zip(texts[i], answers[i], strict=True)]
    confused = Counter(f"{a} read as {b}" for a, b in pairs if a != b)
    if len(wrong) > len(equal):
        confused["another length"] = len(wrong) - len(equal)
    print(f"what went wrong: {listed(confused, 8)}")
    shown = wrong[:5]
    said, read = [texts[i] for i in shown], [answers[i] for i in shown]
    with warnings.catch_warnings(action="ignore"):  # of characters that the font lacks
        show_captchas(pictures[shown], said, read, columns=5).savefig(out / "wrong.png")
    print(f"{len(shown)} of them: {out / 'wrong.png'}")
    return right


def train(
    pictures: np.ndarray,
    texts: list[str],
    source: Path | None,
    settings: dict,
    out: Path,
    typed: str,
) -> dict:
    """Train on four fifths of the texts, test on the rest, write mine.keras; return the record."""
    options.import_keras()
    import matplotlib

    from notebooks_py import ch8_own_captchas as ch8
    from notebooks_py.ch3_ctc import read_ctc

    matplotlib.use("Agg")  # no window
    alphabet, seed = alphabet_of(texts), settings["seed"]
    learn, test = split(texts, seed=seed)
    data = ch8.own_captchas(pictures[learn], [texts[i] for i in learn], alphabet, seed)

    def seconds() -> float:
        model = first_network(source, alphabet, seed)
        ch8.compile_recipe(model, 1_000)
        return seconds_a_step(model, data)

    record = runs.open_run(out, settings, typed, seconds)
    print(f"{len(learn):,} pictures to learn from, {len(test):,} held out; {record['steps']:,} "
          f"batches of {BATCH}, in {out}", flush=True)  # fmt: skip
    model, answers = first_network(source, alphabet, seed), []
    ch8.fine_tune(model, data, record["steps"], out)
    shutil.copy(out / "averaged.keras", mine := out / "mine.keras")
    describe(mine, alphabet, pictures.shape[2])
    for part in np.array_split(test, -(-len(test) // 100)):
        answers += read_ctc(model, pictures[part], alphabet)
    right = tell(out, pictures[test], [texts[i] for i in test], answers)
    score = {"n": len(test), "right": right, "interval": wilson(right, len(test))}
    print(f"written: {mine}")
    return record | {"alphabet": alphabet} | score


def main() -> None:
    """Look at the folder, train, and say what to type next."""
    given = vars(read_options())
    from tools.export import export

    words = [f"{name.upper()}={shlex.quote(str(x))}" for name, x in given.items() if x is not None]
    folder, start, out = given["folder"], given["from"], given.pop("out")
    pictures, texts = read_all(folder, given["pattern"])
    learn, _ = split(texts, seed=given["seed"])  # raises an error if all texts are the same
    if start == "nothing":
        source = None
    elif start == "ctc":
        source = find("ctc.keras")
    else:
        source = Path(start)
        export(source)  # raises an error if the result could not be written as ONNX
    usual = round(400 * (len(learn) / 200) ** 0.5)  # batches: doubled for four times the pictures
    settings = {
        "content": hashlib.sha256(pictures.tobytes() + json.dumps(texts).encode()).hexdigest(),
        "start": source and sha256(source),
        **given,
        "folder": folder.resolve().name,
        "batch": BATCH,
        "budget": given["budget"] or usual * BATCH,
    }
    out = out or Path("build/train", f"tune-{settings['folder']}-{digest(settings)[:8]}")
    with runs.locked(out):
        record = train(pictures, texts, source, settings, out, " ".join(["make tune", *words]))
        (network := out / "mine.onnx").write_bytes(export(out / "mine.keras"))
        runs.write_json(out / runs.RESULTS, record)  # the last, so that all can be made again
    picture = shlex.quote(str(picture_files(folder)[0]))
    print(f"written: {network}\nnext: make read FILE={picture} MODEL={shlex.quote(str(network))}")


if __name__ == "__main__":
    options.end_with(main)
