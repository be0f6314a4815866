"""Finished networks: what is believed, and what is refused."""

import hashlib
import json
import shutil

import keras
import pytest

from captcha_reader.scores import Score, evaluate, wilson
from captcha_reader.weights import MODELS, Missing, available, finished, measured, read_log
from notebooks_py.ch4_gpu_training import read

PARTS = {
    "classic-100": "classic-100k", "modern-1k": "modern-10k", "preview-1k": "preview-10k"
}  # fmt: skip
SCORE = Score("classic-100", 100, 90, (95, 96, 97, 98)).record()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A folder with a tiny network and its results, in the place of models/."""
    folder = tmp_path_factory.mktemp("models")
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(folder / "net.keras")
    digest = hashlib.sha256((folder / "net.keras").read_bytes()).hexdigest()
    results = {"scores": {"classic-100": SCORE}, "sha256": digest}
    (folder / "net.json").write_text(json.dumps(results))
    return folder


def flip(home):
    content = bytearray((home / "net.keras").read_bytes())
    content[len(content) // 2] ^= 1
    (home / "net.keras").write_bytes(content)


def tell(home, **values):
    """Write other values into the score of the results file."""
    results = json.loads((home / "net.json").read_text())
    results["scores"]["classic-100"] |= values
    (home / "net.json").write_text(json.dumps(results))


def cut(home):
    (home / "net.json").write_text((home / "net.json").read_text()[:100])


def forget(home):
    (home / "net.json").write_text(json.dumps({"scores": {}}))


MORE_THAN_CHARACTERS = Score("classic-100", 100, 90, (95, 96, 89, 98)).record()
BROKEN = {
    "one flipped byte of weights": (flip, ValueError, "net.keras is damaged .*expected "),
    "no weights": (lambda home: (home / "net.keras").unlink(), Missing, "no models/net.keras"),
    "no results": (lambda home: (home / "net.json").unlink(), Missing, "no models/net.json"),
    "half a results file": (cut, ValueError, "net.json is damaged"),
    "no checksum": (forget, ValueError, "net.json is damaged: KeyError.*sha256"),
    "a count without its interval": (
        lambda home: tell(home, right=77), ValueError, "interval of classic-100 is .*expected"
    ),
    "more captchas than characters": (
        lambda home: tell(home, **MORE_THAN_CHARACTERS), ValueError, "more captchas right than char"
    ),
    "more right than there are": (
        lambda home: tell(home, right=101), ValueError, "101 right out of 100"
    ),
    "other pictures": (
        lambda home: tell(home, fingerprint="0" * 64), ValueError, "fingerprint of classic-100 is"
    ),
    "another n": (lambda home: tell(home, n=99), ValueError, "no test set 'classic-100' of 99"),
    "an unknown set": (lambda home: tell(home, test_set="x"), ValueError, "no test set 'x'"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_does_not_fit_together_is_refused(published, tmp_path, what):
    breakage, error, message = BROKEN[what]
    home = shutil.copytree(published, tmp_path / "models")
    model, results = finished("net", home)
    assert (model.count_params(), results["scores"]["classic-100"]) == (8, SCORE)
    breakage(home)
    with pytest.raises(error, match=message):
        finished("net", home)


@pytest.mark.parametrize("name", ["cnn", "ctc"])
def test_what_ships_reads_what_it_says(name, record_property):
    """On the beginning of each kind of test set, within what chance allows for the whole.

    Lessons 2, 3 and 7 count the first thousand of classic and wide to the last captcha.
    """
    model, results = finished(name)
    for part, whole in PARTS.items():
        told = results["scores"][whole]
        score = evaluate(lambda pictures: read(model, pictures), part)
        low, high = wilson(score.right, score.n, z=3.3)  # 99.9 %
        assert low < told["right"] / told["n"] < high, whole
        record_property("counts recounted", 1)
    assert results["parameters"] == model.count_params()
    assert results["bytes"] == (MODELS / f"{name}.keras").stat().st_size <= 6_000_000


@pytest.mark.parametrize("keep", ["half", "without its last rows", "without its last end of line"])
def test_a_log_that_was_cut_off_is_refused(keep, tmp_path):
    for file in ("ctc.csv", "ctc.json"):
        shutil.copy(MODELS / file, tmp_path)
    assert len(read_log("ctc", tmp_path)) > 1
    text = (tmp_path / "ctc.csv").read_text()
    lines = text.splitlines(keepends=True)
    cut = {"half": text[: len(text) // 2], "without its last rows": "".join(lines[:-3])}
    (tmp_path / "ctc.csv").write_text(cut.get(keep, text[:-1]))
    with pytest.raises(ValueError, match="ctc.csv was cut off; `git checkout models`"):
        read_log("ctc", tmp_path)


def test_measurements_are_kept_beside_them(tmp_path):
    (tmp_path / "speed.json").write_text('{"rows": [1, 2]}')
    assert measured("speed", tmp_path) == {"rows": [1, 2]}


def test_what_is_missing_is_said_in_one_line(published, tmp_path, capsys):
    assert available("net", published) and not capsys.readouterr().out
    assert not available("net", tmp_path)
    said = f"there is no {tmp_path.name}/net.json; `git checkout models` brings it back"
    assert capsys.readouterr().out == f"nothing to show: {said}\n"
    for load in (measured, finished, read_log):
        with pytest.raises(Missing) as caught:
            load("net", tmp_path)
        assert caught.value._render_traceback_() == [str(caught.value)]
