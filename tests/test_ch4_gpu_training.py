"""Lesson 4: practice, Muon, the recipe, averaged weights, and runs that are interrupted."""

import functools
import shutil
from pathlib import Path

import h5py
import keras
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.practice import Practice
from captcha_reader.texts import ctc_labels, decode, random_texts
from captcha_reader.training import settle_norms
from notebooks_py import ch4_gpu_training as ch4

TINY = {"filters": (4, 8), "convs": 1, "stride": 4, "momentum": 0.9, "norms": "once"}
PRACTICE = Practice(1, batch=4, epoch=12, colors=2)
STEPS = 8  # two epochs of three, and two more


@pytest.mark.parametrize("labels", ["ctc", "one-hot"])
def test_a_sequence_has_the_batches_of_its_practice(labels):
    practice = Practice(1, batch=2, epoch=6, sizes=0.5 * (labels == "ctc"), colors=1)
    asked = []
    data = ch4.PracticeSequence(practice, lambda n: asked.append(n) or practice(n), labels)
    assert len(data) == 3
    for data.epoch in (0, 2):
        X, y = data[1]
        pictures, texts = practice(asked[-1])
        assert X.dtype == "float32" and np.array_equal(X, pictures.astype("float32") / 255)
        found = y if labels == "ctc" else decode(np.argmax(y, axis=-1).T)
        assert np.array_equal(found, ctc_labels(texts) if labels == "ctc" else texts)
    assert asked == [1, 7]


@pytest.mark.parametrize(("kind", "full"), [("cnn", 2_653_360), ("ctc", 3_157_317)])
def test_each_kind_is_built_taught_and_reads_pictures_of_any_size(kind, full):
    build, labels, loss, _ = ch4.KINDS[kind].values()
    assert build(**ch4.FULL[kind], ink=False).count_params() == full
    assert build(**ch4.SLIM).count_params() < full / 2
    model = build(**TINY)
    model.compile("adam", loss)
    practice = Practice(1, batch=4, sizes=0.0, colors=2)  # four characters, for four heads
    X, y = ch4.PracticeSequence(practice, labels=labels)[0]
    assert 4 < float(model.compute_loss(y=y, y_pred=model.predict_on_batch(X))) < 1_000
    for height, width in ((64, 128), (80, 170), (50, 170)):
        answers = ch4.read(model, np.zeros((2, height, width, 3), np.uint8))
        assert len(answers) == 2 and answers[0] == answers[1]


def muon_by_hand(matrix, gradients, rate: float, decay: float) -> np.ndarray:
    """Return a kernel (window, filters) after steps of Muon, computed from singular values."""
    momentum, adjusted = 0.0, rate * max(1, matrix.shape[1] / matrix.shape[0]) ** 0.5
    for gradient in gradients:
        momentum = 0.95 * momentum + gradient
        u, s, v = np.linalg.svd(gradient + 0.95 * momentum, full_matrices=False)
        s /= np.linalg.norm(s)
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        assert np.all(s > 0.3) and np.all(s < 1.3)  # orthogonal, roughly
        matrix = (1 - rate * decay) * matrix - adjusted * (u * s) @ v
    return matrix


@pytest.mark.parametrize("shape", [(3, 3, 1, 24), (3, 3, 8, 4)])
def test_muon_moves_the_kernel_of_a_convolution_as_plain_numpy_does(shape):
    kernel, *gradients = np.random.default_rng(1).normal(size=(4, *shape))
    variable = keras.Variable(kernel.astype("float32"), name="kernel")
    optimizer = ch4.Muon(learning_rate=0.1, weight_decay=0.3)
    for gradient in gradients:
        optimizer.apply([gradient.astype("float32")], [variable])
    rows = [x.reshape(-1, shape[-1]) for x in (kernel, *gradients)]
    expected = muon_by_hand(rows[0], rows[1:], 0.1, 0.3).reshape(shape)
    assert np.allclose(variable, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["cnn", "ctc"])
def test_muon_takes_the_kernels_of_convolutions_and_adamw_the_rest(kind):
    model = ch4.KINDS[kind]["build"](**TINY)
    ch4.compile_recipe(model, 100)
    optimizer, variables = model.optimizer, model.trainable_variables
    optimizer.build(variables)
    pairs = zip(variables, optimizer.adam_velocities, strict=True)
    by_muon = [variable.path for variable, velocity in pairs if velocity is None]
    convs = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert by_muon == [layer.kernel.path for layer in convs] and len(convs) == 2


@pytest.mark.parametrize("muon", [True, False])
def test_the_rate_climbs_and_comes_to_rest_and_kernels_alone_decay(muon):
    def model_after(gradient: float, **more) -> dict[str, float]:
        """Let all weights be 1 and take a step along one gradient."""
        model = ch4.build_ctc(**TINY)
        ch4.compile_recipe(model, 100, rate=0.1, muon=muon, fall=False, **more)
        variables = model.trainable_variables
        for variable in variables:
            variable.assign(np.ones(variable.shape))
        model.optimizer.apply([np.full(v.shape, gradient, "float32") for v in variables], variables)
        conv, norm, *_, last = (layer for layer in model.layers if layer.weights)
        found = {"conv": conv.kernel, "last": last.kernel, "bias": last.bias, "gamma": norm.gamma}
        return {name: float(np.min(value)) for name, value in (found | {"beta": norm.beta}).items()}

    ratio = 1 - model_after(1.0, decay=0.0)["bias"]  # AdamW's first step is as long as its rate
    ratio /= 0.1
    assert 0.05 < ratio < 0.5
    conv = 0.01 if muon else ratio * 0.01
    expected = {"conv": 1 - 0.1 * conv, "last": 1 - 0.1 * ratio * 0.01}
    expected |= dict.fromkeys(("bias", "gamma", "beta"), 1)
    assert model_after(0.0) == pytest.approx(expected, abs=1e-6)
    model = ch4.build_ctc(**TINY)
    cycle = ch4.compile_recipe(model, 5_000, rate=0.02, muon=muon)
    peak = 0.02 if muon else 0.02 * ratio
    rates = [float(cycle(step)) for step in (0, 125, 250, (5_000 + 250) / 2, 5_000)]
    assert rates == pytest.approx([0, peak / 2, peak, peak / 2, 0], rel=1e-3, abs=1e-6)
    model.optimizer.iterations.assign(250)
    assert float(model.optimizer.learning_rate) == pytest.approx(peak, rel=1e-3)


@pytest.fixture(scope="module")
def held_out():
    rng = stream(1, "valid", 0, 0)
    texts = random_texts(rng, 8)
    return {"classic": [(draw_captchas(texts, rng), ctc_labels(texts), texts)]}


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
        ch4.compile_recipe(self.model, STEPS)
        self.model.optimizer.build(self.model.trainable_variables)
        self.state = self.model.variables + self.model.optimizer.variables
        self.start = [keras.ops.convert_to_numpy(value).copy() for value in self.state]
        self.data = ch4.PracticeSequence(PRACTICE, functools.cache(PRACTICE))

    def reset(self) -> None:
        for variable, value in zip(self.state, self.start, strict=True):
            variable.assign(value)
        self.data.epoch = self.data.steps = 7  # left over from whatever it was used for before

    def run(self, folder: Path, stop: int | None = None) -> list:
        self.reset()
        ch4.fit_recipe(self.model, self.data, STEPS, self.held_out, folder, [note := Note(stop)])
        return note.seen


@pytest.fixture(scope="module")
def trainer(held_out):
    return Trainer(held_out)


@pytest.fixture(scope="module")
def whole(trainer, tmp_path_factory):
    """A run without a break: its folder and its weights after each step."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, trainer.run(folder)


@pytest.fixture(scope="module")
def stopped(trainer, tmp_path_factory):
    """The folder of a run that was stopped in its last, short epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        trainer.run(folder, stop=7)
    return folder


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(map(np.array_equal, a, b))


def test_the_run_takes_its_steps_and_averaging_leaves_them_alone_bit_by_bit(trainer, whole):
    trainer.reset()
    trainer.data.epoch, plain = 0, []
    for number in range(STEPS):  # one batch after another
        trainer.model.train_on_batch(*trainer.data[number])
        plain.append(trainer.model.get_weights())
    assert len(whole[1]) == STEPS and all(map(same, plain, whole[1])) and not same(*plain[1:3])


def test_the_file_is_the_average_and_reads_as_logged(whole, held_out):
    folder, seen = whole
    ((pictures, y, texts),) = held_out["classic"]
    model = keras.models.load_model(folder / "averaged.keras")
    assert not model.compiled and not hasattr(model, "optimizer")
    model.compile(loss=ch4.KINDS["ctc"]["loss"])
    log = pd.read_csv(folder / "log.csv")
    assert log.epoch.tolist() == [0, 1, 2] and (log.seconds > 0).all()
    loss = model.evaluate(pictures.astype("float32") / 255, y, verbose=0)
    assert log.val_loss.iloc[-1] == pytest.approx(loss, rel=1e-5)
    right = [a == b for a, b in zip(ch4.read(model, pictures), texts, strict=True)]
    assert log.val_acc.iloc[-1] == np.mean(right)
    # In so few steps the average keeps one half, from the first step on.
    expected = seen[0]
    for weights in seen[1:]:
        expected = [(a + b) / 2 for a, b in zip(expected, weights, strict=True)]
    for variable, found, value in zip(model.variables, model.get_weights(), expected, strict=True):
        if variable.trainable:  # norms measure their means anew
            assert np.allclose(found, value, rtol=1e-5, atol=1e-6), variable.path


def test_norms_measure_all_batches_alike_with_the_weights_as_they_are():
    model = ch4.build_ctc(**TINY)
    norm = next(layer for layer in model.layers if "normalization" in layer.name)
    batches = [PRACTICE(number)[0].astype("float32") / 255 for number in (0, 1)]  # of two widths
    before = keras.Model(model.input, norm.input)
    seen = [keras.ops.convert_to_numpy(before(batch)) for batch in batches]
    settle_norms(model, batches)
    for measured, of in ((norm.moving_mean, np.mean), (norm.moving_variance, np.var)):
        expected = np.mean([of(x, axis=(0, 1, 2)) for x in seen], axis=0)
        assert np.allclose(measured, expected, rtol=1e-3, atol=1e-5)
    assert norm.momentum == TINY["momentum"]


STATE = "latest.weights.h5"
INTERRUPTED = {  # the files that the interruption left torn, and the epochs that are trained again
    "in the middle of an epoch": ([], [2]),
    "while it wrote the weights": ([STATE], [1, 2]),
    "while it copied the weights": ([f"{STATE}.bkp"], [2]),
}


@pytest.mark.parametrize("when", INTERRUPTED)
def test_a_run_goes_on_to_the_same_bits(trainer, whole, stopped, tmp_path, when):
    torn, epochs = INTERRUPTED[when]
    folder = shutil.copytree(stopped, tmp_path / "run")
    for path in (folder / "backup" / name for name in torn):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    seen = trainer.run(folder)
    assert len(seen) == STEPS - 3 * epochs[0] and all(map(same, seen, whole[1][3 * epochs[0] :]))
    averaged = [keras.models.load_model(x / "averaged.keras") for x in (folder, whole[0])]
    assert same(*(model.get_weights() for model in averaged))
    logs = [pd.read_csv(x / "log.csv").drop(columns="seconds") for x in (folder, whole[0])]
    assert logs[0].epoch.tolist() == [0, 1, *epochs]
    logs[0] = logs[0].drop_duplicates("epoch", keep="last").reset_index(drop=True)
    pd.testing.assert_frame_equal(*logs)


def test_ctrl_c_while_the_state_is_written_leaves_the_one_before(trainer, whole, tmp_path):
    save, calls = trainer.model.save_weights, []

    def stop(path):
        save(path)
        calls.append(path)
        if len(calls) == 2:
            with h5py.File(path, "a") as file:  # Keras closes the file, as far as it got
                del file["optimizer"]
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.model, "save_weights", stop)
        with pytest.raises(KeyboardInterrupt):
            trainer.run(tmp_path)
    seen = trainer.run(tmp_path)
    assert len(seen) == STEPS - 3 and all(map(same, seen, whole[1][3:]))


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
