"""Lesson 4: practice, the recipe, averaged weights, runs that are interrupted, and devices."""

import functools
import json
import random
import shutil
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from captcha_reader.bank import GlyphBank
from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.texts import encode, random_texts
from captcha_reader.training import settle_norms
from notebooks_py import ch4_gpu_training as ch4

TINY = {"filters": (4, 8), "convs": 1, "stride": 4, "momentum": 0.9}
STEPS, EPOCHS = 3, 3


def test_o_and_0_are_practised_and_less_towards_the_end():
    data = ch4.PracticeSequence(5_000, 1, 1, epochs=10)
    plain, three_of_four = 2 / 36, 108 / 142
    first = 0.5 * three_of_four + 0.5 * plain
    last = 0.2 * three_of_four + 0.8 * plain
    shares = []
    for data.epoch in range(10):
        texts = "".join(data.texts(stream(1, "train", data.epoch, 0)))
        shares.append((texts.count("O") + texts.count("0")) / len(texts))
    assert shares == pytest.approx([first] * 8 + [last] * 2, abs=0.015)


def test_each_epoch_has_a_bank_of_its_own(monkeypatch):
    monkeypatch.setattr(ch4, "GlyphBank", functools.partial(GlyphBank, colors=2, copies=1))
    monkeypatch.setattr(ch4, "fresh_bank", functools.cache(ch4.fresh_bank.__wrapped__))
    data, pictures = ch4.PracticeSequence(2, 2, 7, epochs=2), []
    for data.epoch in (0, 1):
        pictures.append(data.draw(["O0AB"], random.Random(1)))
        again = ch4.fresh_bank(7, data.epoch, 128).draw(["O0AB"], random.Random(1))
        assert np.array_equal(again, pictures[-1])
    assert not np.array_equal(*pictures)
    glyphs = ch4.fresh_bank(7, 1, 128).glyphs[0]
    assert {c: len(kept) for c, kept in glyphs.items() if len(kept) > 1} == {"O": 20, "0": 20}


@pytest.mark.parametrize(("kind", "full"), [("cnn", 2_653_360), ("ctc", 3_157_317)])
def test_each_kind_is_built_taught_and_read(kind, full):
    build, labels, loss, _ = ch4.KINDS[kind].values()
    assert build(**ch4.FULL[kind], ink=False).count_params() == full
    assert build(**ch4.SLIM).count_params() < full / 2
    model = build(**TINY)
    model.compile("adam", loss)
    X, y = ch4.PracticeSequence(2, 1, 1, labels=labels, draw=draw_captchas)[0]
    loss = float(model.compute_loss(y=y, y_pred=model.predict_on_batch(X)))
    assert np.isfinite(loss) and loss > 4
    answers = ch4.read(model, np.zeros((2, 64, 128, 3), np.uint8))
    assert len(answers) == 2 and answers[0] == answers[1]


def test_the_rate_climbs_to_its_peak_and_comes_to_rest_and_kernels_alone_decay():
    picture = keras.Input((64, 128, 3))
    x = keras.layers.Dense(2)(keras.layers.BatchNormalization()(picture))
    model = keras.Model(picture, x, name="ctc")
    cycle = ch4.compile_recipe(model, 5_000, peak=2e-3)
    rates = [float(cycle(step)) for step in (0, 250, (5_000 + 250) / 2, 5_000)]
    assert rates == pytest.approx([0, 2e-3, 1e-3, 0], abs=1e-6)
    model.optimizer.iterations.assign(250)
    assert float(model.optimizer.learning_rate) == pytest.approx(2e-3)
    ch4.compile_recipe(model, 100, peak=0.1, fall=False)
    variables = model.trainable_variables
    for variable in variables:
        variable.assign(np.ones(variable.shape))
    model.optimizer.apply([np.zeros(v.shape, "float32") for v in variables], variables)
    after = {v.path.split("/")[-1]: float(np.min(v)) for v in variables}
    assert after == pytest.approx({"kernel": 1 - 0.1 * 0.01, "bias": 1, "gamma": 1, "beta": 1})
    assert model.optimizer.global_clipnorm == 1


@pytest.fixture(scope="module")
def held_out():
    rng = stream(1, "valid", 0, 0)
    texts = random_texts(rng, 8)
    return draw_captchas(texts, rng).astype("float32") / 255, encode(texts) + 1, texts


class Note(keras.callbacks.Callback):
    """Notes the weights after each batch, and raises KeyboardInterrupt after batch `stop`."""

    def __init__(self, stop=None):
        super().__init__()
        self.stop, self.seen = stop, []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(self.model.get_weights())
        if int(self.model.optimizer.iterations) == self.stop:
            raise KeyboardInterrupt


class Trainer:
    """Trains one tiny network again and again, compiled once, each time from the same beginning."""

    def __init__(self, held_out):
        keras.utils.set_random_seed(1)
        self.held_out, self.model = held_out, ch4.build_ctc(**TINY)
        ch4.compile_recipe(self.model, EPOCHS * STEPS)
        self.model.optimizer.build(self.model.trainable_variables)
        self.state = self.model.variables + self.model.optimizer.variables
        self.start = [keras.ops.convert_to_numpy(value).copy() for value in self.state]

    def run(self, folder: Path, stop: int | None = None, average=True, left=7) -> Note:
        for variable, value in zip(self.state, self.start, strict=True):
            variable.assign(value)
        more = {"labels": "ctc", "epochs": EPOCHS, "workers": 2, "draw": draw_captchas}
        data, note = ch4.PracticeSequence(4, STEPS, 1, **more), Note(stop)
        data.epoch = left  # left over from whatever it was used for before
        if average:
            ch4.fit_recipe(self.model, data, self.held_out, folder, [note])
        else:
            callbacks = [ch4.SetEpoch(data), note]
            self.model.fit(data, epochs=EPOCHS, callbacks=callbacks, shuffle=False, verbose=0)
        return note


@pytest.fixture(scope="module")
def trainer(held_out):
    return Trainer(held_out)


@pytest.fixture(scope="module")
def whole(trainer, tmp_path_factory):
    """A run without a break: its folder and its notes."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, trainer.run(folder).seen


@pytest.fixture(scope="module")
def stopped(trainer, tmp_path_factory):
    """The folder of a run that was stopped in the middle of its last epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        trainer.run(folder, stop=2 * STEPS + 2)
    return folder


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(map(np.array_equal, a, b))


def test_averaging_leaves_the_training_alone_bit_by_bit(trainer, whole, tmp_path):
    plain = trainer.run(tmp_path, average=False).seen
    assert len(plain) == len(whole[1]) == EPOCHS * STEPS
    assert all(map(same, plain, whole[1])) and not same(plain[0], plain[1])


def test_the_file_is_the_average_and_reads_as_logged(whole, held_out):
    folder, seen = whole
    X, y, texts = held_out
    model = keras.models.load_model(folder / "averaged.keras")
    assert not model.compiled and not hasattr(model, "optimizer")
    model.compile(loss=ch4.KINDS["ctc"]["loss"])
    log = pd.read_csv(folder / "log.csv")
    assert log.epoch.tolist() == [0, 1, 2] and (log.seconds > 0).all()
    assert log.val_loss.iloc[-1] == pytest.approx(model.evaluate(X, y, verbose=0), rel=1e-5)
    answers = ch4.read(model, np.rint(X * 255).astype(np.uint8))
    assert log.val_acc.iloc[-1] == np.mean([a == b for a, b in zip(answers, texts, strict=True)])
    # 9 steps: the average keeps one half, from the first step on.
    expected = seen[0]
    for weights in seen[1:]:
        expected = [(a + b) / 2 for a, b in zip(expected, weights, strict=True)]
    for variable, found, value in zip(model.variables, model.get_weights(), expected, strict=True):
        if variable.trainable:  # norms measure their means anew
            assert np.allclose(found, value, rtol=1e-5, atol=1e-6), variable.path


def test_norms_measure_the_pictures_with_the_weights_as_they_are(held_out):
    model = ch4.build_ctc(**TINY)
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    norm = next(layer for layer in model.layers if "normalization" in layer.name)
    seen = keras.Model(model.input, first.output).predict(held_out[0], verbose=0)
    momentum = norm.momentum
    settle_norms(model, held_out[0])
    expected = seen.mean(axis=(0, 1, 2)), seen.var(axis=(0, 1, 2))
    for found, value in zip((norm.moving_mean, norm.moving_variance), expected, strict=True):
        assert np.allclose(keras.ops.convert_to_numpy(found), value, rtol=1e-3, atol=1e-5)
    assert norm.momentum == momentum


def torn(name: str):
    def tear(backup: Path) -> None:
        content = (backup / name).read_bytes()
        (backup / name).write_bytes(content[: len(content) // 2])

    return tear


NOTE = "training_metadata.json"
INTERRUPTED = {  # what the interruption left behind, and the epochs that are trained again
    "in the middle of an epoch": (lambda backup: None, [2]),
    "while it wrote the weights": (torn("latest.weights.h5"), [1, 2]),
    "between the weights and their note": (
        lambda backup: shutil.copy(backup / f"{NOTE}.bkp", backup / NOTE), [2]
    ),
    "while it wrote the note": (lambda backup: (backup / NOTE).write_text(""), [2]),
    "while it copied the weights": (torn("latest.weights.h5.bkp"), [2]),
}  # fmt: skip


@pytest.mark.parametrize("when", INTERRUPTED)
def test_a_run_goes_on_to_the_same_bits(trainer, whole, stopped, tmp_path, when):
    breakage, epochs = INTERRUPTED[when]
    folder = shutil.copytree(stopped, tmp_path / "run")
    assert json.loads((folder / "backup" / NOTE).read_text())["epoch"] == 2
    breakage(folder / "backup")
    seen = trainer.run(folder, left=8).seen
    assert all(map(same, seen, whole[1][STEPS * epochs[0] :]))
    averaged = [keras.models.load_model(x / "averaged.keras") for x in (folder, whole[0])]
    assert same(*(model.get_weights() for model in averaged))
    logs = [pd.read_csv(x / "log.csv").drop(columns="seconds") for x in (folder, whole[0])]
    assert logs[0].epoch.tolist() == [0, 1, *epochs]
    logs[0] = logs[0].drop_duplicates("epoch", keep="last").reset_index(drop=True)
    pd.testing.assert_frame_equal(*logs)


def test_half_precision_where_the_hardware_has_it(monkeypatch, tmp_path):
    monkeypatch.setattr(ch4, "Path", {"/proc/cpuinfo": tmp_path / "cpuinfo"}.get)
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0"])
    assert ch4.best_precision() == "float32"  # no such file
    for flags, precision in {
        "fpu avx2 avx512f": "float32",
        "fpu avx2 avx512_bf16": "mixed_bfloat16",
        "fpu amx_bf16": "mixed_bfloat16",
    }.items():
        (tmp_path / "cpuinfo").write_text(flags)
        assert ch4.best_precision() == precision
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0", "gpu:1"])
    assert ch4.best_precision() == "mixed_bfloat16"


def test_error_bars_are_errors_with_their_intervals(capsys):
    axes = Figure().subplots()
    rows = [("a", 4_901, 5_000), ("b", 50, 100), ("a", 4_901, 5_000)]
    ch4.plot_errors(axes, pd.DataFrame(rows, columns=["name", "right", "n"]), "T")
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([1.98, 50])
    first = axes.collections[0].get_segments()[0][:, 0]
    assert first == pytest.approx([1.72, 2.27], abs=0.01) and axes.get_title() == "T"
    dots = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "o"]
    assert [len(x) for x in dots] == [2, 1] and dots[0][1][0] == pytest.approx(1.98)
    assert dots[0][0][1] != dots[0][1][1]  # equal seeds stand side by side
    assert capsys.readouterr().out.startswith("a                            1.98 % (1.72 to 2.27 %")
