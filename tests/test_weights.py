"""Finished networks are what their records say, and what does not fit is refused."""

import pytest

from captcha_reader import weights
from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.scores import Score, evaluate, wilson
from captcha_reader.weights import MODELS, Missing, finished, sha256
from tools import train
from tools.evaluate import reader
from tools.lessons import write


@pytest.mark.parametrize(("name", "part", "whole"), [
    ("cnn.keras", "preview-1k", "preview-10k"), ("ctc.keras", "sizes-1k", "sizes-10k"),
    ("pytorch.pt", "wide-1k", "wide-10k"),
])  # fmt: skip
def test_what_ships_reads_what_it_says(name, part, whole):
    """Within what chance allows; lessons 2 and 3 count `classic` again, and lesson 6 `nothing`."""
    if name.endswith(".pt"):
        pytest.importorskip("torch")
    path = MODELS / name
    published = weights.read_results(path.stem)["scores"][whole]
    score = evaluate(reader(path), part)
    low, high = wilson(score.right, score.n, z=3.3)  # 99.9 %
    assert low < published["right"] / published["n"] < high


def test_the_network_of_pytorch_gets_pictures_of_other_sizes_scaled():
    pytest.importorskip("torch")
    pictures = draw_captchas(["7KQ2"], stream(1, "scaled", epoch=0, index=0), 160, 60)
    assert len(reader(MODELS / "pytorch.pt")(pictures)) == 1


def test_a_file_of_pytorch_that_holds_something_else_is_named(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(1)}, other := tmp_path / "other.pt")
    (damaged := tmp_path / "damaged.pt").write_bytes(b"half a file")
    for path in (other, damaged):
        with pytest.raises(ValueError, match=f"{path.name} holds no slim network of lesson 7: "):
            reader(path)


@pytest.mark.parametrize("name", ["cnn.keras", "ctc.keras", "pytorch.pt"])
def test_what_ships_fits_its_record_and_its_log(name):
    path = MODELS / name
    results, log = weights.read_results(path.stem), weights.read_log(path.stem)
    assert (sha256(path), path.stat().st_size) == (results["sha256"], results["bytes"])
    words = ["--" + word.lower() for word in results["command"].split()[2:]]
    typed, *_ = train.read_options(words)
    typed["precision"] = results["settings"]["precision"]  # auto became that of the machine
    assert typed == results["settings"]
    if path.suffix == ".keras":
        slim, full = (train.build(typed | {"size": size}) for size in ("slim", "full"))
        assert slim.count_params() == results["parameters"] < full.count_params()
    assert results["steps"] * results["settings"]["batch"] == results["pictures"]
    assert log.pictures.iloc[-1] == results["pictures"]
    assert log.seconds.iloc[-1] == pytest.approx(results["seconds"], abs=2)
    assert log.pictures.is_monotonic_increasing and log.epoch.is_unique  # one run, one curve
    for name, score in results["scores"].items():
        counts = score["n"], score["right"], tuple(score["right_by_position"])
        assert score == Score(name, *counts).record()
    if score := results["scores"].get("classic-100k"):
        wrong = weights.read_errors(path.stem)
        assert len(wrong) == score["n"] - score["right"] and all(a != b for a, b in wrong)


def test_weights_that_were_changed_or_are_missing_are_refused(tmp_path, capsys):
    home = tmp_path / "models"
    for load in (weights.read_results, weights.read_log, finished):
        with pytest.raises(Missing, match="models/net.(json|csv).* `git checkout models`") as error:
            load("net", home)
    assert error.value._render_traceback_() == [str(error.value)]
    assert not weights.available("net", home)
    assert str(error.value) in capsys.readouterr().out
    write(home / "net.json", '{"sha256": "abc"}')
    assert weights.available("net", home)
    with pytest.raises(Missing, match="models/net.keras"):
        finished("net", home)
    write(home / "net.keras", "half a file")
    with pytest.raises(ValueError, match="net.keras is damaged"):
        finished("net", home)
