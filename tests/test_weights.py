"""Finished networks: what is believed, and what is refused."""

import json
import re
import shutil

import keras
import pytest

from captcha_reader.scores import Score, evaluate, wilson
from captcha_reader.weights import (
    MODELS,
    Missing,
    available,
    finished,
    measured,
    read_log,
    read_results,
    sha256,
)
from notebooks_py.ch4_gpu_training import read
from tools import options, publish, train

SCORE = Score("classic-100", 100, 90, (95, 96, 97, 98)).record()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with a tiny network and its results, in the place of models/."""
    folder = tmp_path_factory.mktemp("models")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(folder / "net.keras")
    results = {"scores": {"classic-100": SCORE}, "sha256": sha256(folder / "net.keras")}
    (folder / "net.json").write_text(json.dumps(results))
    return folder


def test_counts_of_texts_of_any_length_are_believed(tmp_path):
    """Where there is nothing to read, no character is right at any position."""
    counts = {"nothing-1k": (950, (0,) * 6), "sizes-1k": (960, (990, 940, 900, 700, 400, 100))}
    scores = {name: Score(name, 1_000, *count).record() for name, count in counts.items()}
    (tmp_path / "net.json").write_text(json.dumps({"scores": scores, "sha256": ""}))
    assert read_results("net", tmp_path)["scores"] == scores


def flip(home):
    content = bytearray((home / "net.keras").read_bytes())
    content[len(content) // 2] ^= 1
    (home / "net.keras").write_bytes(content)


def write(text):
    return lambda home: (home / "net.json").write_text(text)


def tell(**values):
    return write(json.dumps({"scores": {"classic-100": SCORE | values}, "sha256": ""}))


MORE_THAN_CHARACTERS = Score("classic-100", 100, 90, (95, 96, 89, 98)).record()
BROKEN = {
    "one flipped byte of weights": (flip, "net.keras is damaged"),
    "no weights": (lambda home: (home / "net.keras").unlink(), "no models/net.keras"),
    "no results": (lambda home: (home / "net.json").unlink(), "no models/net.json"),
    "half a results file": (write('{"scores": {'), "net.json is damaged"),
    "no checksum": (write('{"scores": {}}'), "net.json is damaged: KeyError.*sha256"),
    "a count without its interval": (tell(right=77), "interval of classic-100 is .*expected"),
    "more captchas than characters": (tell(**MORE_THAN_CHARACTERS), "more captchas right than ch"),
    "more right than there are": (tell(right=101), "101 right out of 100"),
    "other pictures": (tell(fingerprint="0" * 64), "fingerprint of classic-100 is"),
    "another n": (tell(n=99), "no test set 'classic-100' of 99"),
    "an unknown set": (tell(test_set="x"), "no test set 'x'"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_does_not_fit_together_is_refused(published, tmp_path, what):
    breakage, message = BROKEN[what]
    home = shutil.copytree(published, tmp_path / "models")
    model, results = finished("net", home)
    assert (model.count_params(), results["scores"]["classic-100"]) == (8, SCORE)
    breakage(home)
    with pytest.raises((Missing, ValueError), match=message):
        finished("net", home)


RECOUNTED = {  # a set, and the one that it is the beginning of; lessons 2, 3 and 7 count others
    "cnn": {"modern-1k": "modern-10k", "default-1k": "default-10k", "preview-1k": "preview-10k"},
    "ctc": {"modern-1k": "modern-10k", "preview-1k": "preview-10k", "sizes-1k": "sizes-10k",
            "nothing-1k": "nothing-1k"},
}  # fmt: skip


@pytest.mark.parametrize("name", RECOUNTED)
def test_what_ships_reads_what_it_says(name):
    """Within what chance allows."""
    model, results = finished(name)
    for part, whole in RECOUNTED[name].items():
        told = results["scores"][whole]
        score = evaluate(lambda pictures: read(model, pictures), part)
        low, high = wilson(score.right, score.n, z=3.3)  # 99.9 %
        assert low < told["right"] / told["n"] < high, whole
    assert results["parameters"] == model.count_params()


@pytest.mark.parametrize("name", publish.SETS)
def test_what_ships_says_how_it_was_made_and_all_that_was_counted(name):
    """The command leads to the settings, and the log ends where the results say."""
    results, log = read_results(name), read_log(name)
    make, target, *words = results["command"].split()
    chosen = options.read(words, "train", train.DEFAULTS, train.ALLOWED)
    settings = train.settle(chosen) | {"PRECISION": results["settings"]["PRECISION"]}
    assert (make, target, settings["MODEL"]) == ("make", "train", name)
    assert results["settings"].items() <= settings.items()
    assert set(results["scores"]) == {*publish.SETS[name], publish.JUDGES[name]}
    (weights,) = (path for path in MODELS.glob(f"{name}.*") if path.suffix in (".keras", ".pt"))
    assert sha256(weights) == results["sha256"]
    assert results["bytes"] == weights.stat().st_size <= 6_000_000
    pictures = results["steps"] * int(settings["BATCH"])
    assert log.pictures.iloc[-1] == results["pictures"] == pictures
    assert log.seconds.iloc[-1] == pytest.approx(results["seconds"], abs=2)
    assert log.pictures.is_monotonic_increasing and log.epoch.is_unique  # one run, one curve


def test_a_log_that_was_cut_off_is_refused(tmp_path):
    for file in ("ctc.csv", "ctc.json"):
        shutil.copy(MODELS / file, tmp_path)
    assert len(read_log("ctc", tmp_path)) > 1
    log = (tmp_path / "ctc.csv").read_text()
    rows = log.splitlines(keepends=True)
    for cut in (log[: len(log) // 2], "".join(rows[:-3]), log[:-1]):
        (tmp_path / "ctc.csv").write_text(cut)
        with pytest.raises(ValueError, match="ctc.csv .*`git checkout models`"):
            read_log("ctc", tmp_path)


def test_what_is_missing_is_said_in_one_line(published, tmp_path, capsys):
    assert available("net", published) and not capsys.readouterr().out
    assert not available("net", tmp_path)
    said = f".*{tmp_path.name}/net.json.* `git checkout models`.*"
    assert re.fullmatch(f"{said}\n", capsys.readouterr().out)
    for load in (measured, finished, read_log):
        with pytest.raises(Missing, match="net.(json|csv).* `git checkout models`") as caught:
            load("net", tmp_path)
        assert caught.value._render_traceback_() == [str(caught.value)]
