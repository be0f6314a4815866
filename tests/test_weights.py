"""Finished networks: what is believed, and what is refused."""

import json
import shutil

import keras
import publish
import pytest

from captcha_reader.scores import Score, evaluate, wilson
from captcha_reader.weights import MODELS, Missing, available, finished, measured, read_log, sha256
from notebooks_py.ch4_gpu_training import read

SCORE = Score("classic-100", 100, 90, (95, 96, 97, 98)).record()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with a tiny network and its results, in the place of models/."""
    folder = tmp_path_factory.mktemp("models")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(folder / "net.keras")
    results = {"scores": {"classic-100": SCORE}, "sha256": sha256(folder / "net.keras")}
    (folder / "net.json").write_text(json.dumps(results))
    return folder


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
    "one flipped byte of weights": (flip, "net.keras is damaged .*expected "),
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


@pytest.mark.parametrize("name", ["cnn", "ctc"])
def test_what_ships_reads_what_it_says(name):
    """Within what chance allows; lessons 2, 3 and 7 count the first of classic and wide again."""
    model, results = finished(name)
    for part, whole in (("modern-1k", "modern-10k"), ("preview-1k", "preview-10k")):
        told = results["scores"][whole]
        score = evaluate(lambda pictures: read(model, pictures), part)
        low, high = wilson(score.right, score.n, z=3.3)  # 99.9 %
        assert low < told["right"] / told["n"] < high, whole
    assert set(results["scores"]) == set(publish.SETS)
    assert results["parameters"] == model.count_params()
    assert results["bytes"] == (MODELS / f"{name}.keras").stat().st_size <= 6_000_000
    last = read_log(name).iloc[-1]
    assert last.run == len(results["runs"])
    assert last.pictures == results["pictures"] == sum(x["pictures"] for x in results["runs"])
    assert last.seconds == pytest.approx(results["seconds"], abs=2)


def test_a_log_that_was_cut_off_is_refused(tmp_path):
    for file in ("ctc.csv", "ctc.json"):
        shutil.copy(MODELS / file, tmp_path)
    assert len(read_log("ctc", tmp_path)) > 1
    log = (tmp_path / "ctc.csv").read_text()
    rows = log.splitlines(keepends=True)
    for cut in (log[: len(log) // 2], "".join(rows[:-3]), log[:-1]):
        (tmp_path / "ctc.csv").write_text(cut)
        with pytest.raises(ValueError, match="ctc.csv was cut off; `git checkout models`"):
            read_log("ctc", tmp_path)


def test_what_is_missing_is_said_in_one_line(published, tmp_path, capsys):
    assert available("net", published) and not capsys.readouterr().out
    assert not available("net", tmp_path)
    said = f"there is no {tmp_path.name}/net.json; `git checkout models` brings it back"
    assert capsys.readouterr().out == f"nothing to show: {said}\n"
    for load in (measured, finished, read_log):
        with pytest.raises(Missing) as caught:
            load("net", tmp_path)
        assert caught.value._render_traceback_() == [str(caught.value)]
