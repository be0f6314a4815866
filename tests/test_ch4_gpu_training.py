"""Lesson 4: practice, Muon, the recipe, averaged weights, and runs that are interrupted."""

import functools
from pathlib import Path

import h5py
import keras
import numpy as np
import pandas as pd
import pytest

from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.practice import Practice
from captcha_reader.texts import ctc_labels, random_texts
from captcha_reader.training import settle_norms
from notebooks_py import ch4_gpu_training as ch4
from tools.networks import NETWORKS

TINY = {"filters": (4, 8), "convs": 1, "stride": 4, "momentum": 0.9, "norms": "once"}
PRACTICE = Practice(1, batch=4, epoch=12, colors=2)
STEPS = 8  # two epochs of three, and two more


def muon_by_hand(matrix, gradients, rate: float, decay: float) -> np.ndarray:
    """Return a kernel (window, filters) after steps of Muon, computed from singular values."""
    momentum, adjusted = 0.0, rate * max(1, matrix.shape[1] / matrix.shape[0]) ** 0.5
    for gradient in gradients:
        momentum = 0.95 * momentum + gradient
        u, s, v = np.linalg.svd(gradient + 0.95 * momentum, full_matrices=False)
        s /= np.linalg.norm(s)
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
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
    assert np.allclose(variable.numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(("kind", "muon"), [("cnn", True), ("ctc", False)])
def test_kernels_alone_decay_those_of_convolutions_at_the_rate_of_muon(kind, muon):
    model = NETWORKS[kind]["build"](**TINY)
    ch4.compile_recipe(model, 100, rate=0.1, muon=muon, fall=False)
    variables = model.trainable_variables
    for variable in variables:
        variable.assign(np.ones(variable.shape))
    model.optimizer.apply([np.zeros(v.shape, "float32") for v in variables], variables)
    for variable in variables:
        rate = 0.1 if muon and "conv" in variable.path else 0.015  # AdamW's is 0.15 times Muon's
        expected = 1 - 0.01 * rate if variable.name == "kernel" else 1
        assert np.allclose(variable.numpy(), expected, atol=1e-6), variable.path


class Trainer:
    """Trains one tiny network again and again, compiled once, each time from the same beginning."""

    def __init__(self):
        keras.utils.set_random_seed(1)
        rng = stream(1, "valid", 0, 0)
        self.texts = random_texts(rng, 8)
        self.pictures, self.y = draw_captchas(self.texts, rng), ctc_labels(self.texts)
        self.model = ch4.build_ctc(**TINY)
        ch4.compile_recipe(self.model, STEPS)
        self.model.optimizer.build(self.model.trainable_variables)
        self.state = self.model.variables + self.model.optimizer.variables
        self.start = [keras.ops.convert_to_numpy(value).copy() for value in self.state]
        self.data = ch4.PracticeSequence(PRACTICE, functools.cache(PRACTICE))

    def reset(self) -> None:
        for variable, value in zip(self.state, self.start, strict=True):
            variable.assign(value)

    def run(self, folder: Path, stop: int | None = None) -> list:
        """Return the weights after each batch; batch `stop` is interrupted."""
        seen = []

        def note(batch, logs):
            seen.append(self.model.get_weights())
            if int(self.model.optimizer.iterations) == stop:
                raise KeyboardInterrupt

        self.reset()
        self.data.epoch = self.data.steps = 7  # left over from whatever it was used for before
        held_out = {"classic": [(self.pictures, self.y, self.texts)]}
        callback = keras.callbacks.LambdaCallback(on_train_batch_end=note)
        ch4.fit_recipe(self.model, self.data, STEPS, held_out, folder, [callback])
        return seen


@pytest.fixture(scope="module")
def trainer():
    return Trainer()


@pytest.fixture(scope="module")
def whole(trainer, tmp_path_factory):
    """Return a run without a break: its folder and its weights after each step."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, trainer.run(folder)


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return len(a) == len(b) and all(map(np.array_equal, a, b))


def test_averaging_leaves_the_training_alone(trainer, whole):
    trainer.reset()
    trainer.data.epoch = 0
    for number, weights in enumerate(whole[1]):  # one batch after another
        trainer.model.train_on_batch(*trainer.data[number])
        assert same(trainer.model.get_weights(), weights)


def test_the_file_is_the_average_and_reads_as_logged(trainer, whole):
    folder, seen = whole
    model = keras.models.load_model(folder / "averaged.keras")
    assert not model.compiled
    model.compile(loss=keras.losses.CTC())
    log = pd.read_csv(folder / "log.csv")
    assert log.epoch.tolist() == [0, 1, 2] and len(seen) == STEPS
    loss = model.evaluate(trainer.pictures.astype("float32") / 255, trainer.y, verbose=0)
    assert log.val_loss.iloc[-1] == pytest.approx(loss, rel=1e-5)
    answers = ch4.read_pictures(model, trainer.pictures)
    assert log.val_acc.iloc[-1] == np.mean(np.array(answers) == trainer.texts)
    # In so few steps the average keeps one half, from the first step on.
    expected = seen[0]
    for weights in seen[1:]:
        expected = [(a + b) / 2 for a, b in zip(expected, weights, strict=True)]
    for variable, value in zip(model.variables, expected, strict=True):
        if variable.trainable:  # norms measure their means anew
            assert np.allclose(variable.numpy(), value, rtol=1e-5, atol=1e-6), variable.path


def test_norms_measure_all_batches_alike_with_the_weights_as_they_are():
    model = ch4.build_ctc(**TINY)
    norm = next(layer for layer in model.layers if "normalization" in layer.name)
    batches = [PRACTICE(number)[0].astype("float32") / 255 for number in (0, 1)]  # of two widths
    before = keras.Model(model.input, norm.input)
    seen = [before.predict_on_batch(batch) for batch in batches]
    settle_norms(model, batches)
    for measured, of in ((norm.moving_mean, np.mean), (norm.moving_variance, np.var)):
        expected = np.mean([of(x, axis=(0, 1, 2)) for x in seen], axis=0)
        assert np.allclose(measured, expected, rtol=1e-3, atol=1e-5)
    assert norm.momentum == TINY["momentum"]


def test_a_run_goes_on_to_the_same_bits_also_if_a_power_cut_tore_its_state(
    trainer, whole, tmp_path
):
    with pytest.raises(KeyboardInterrupt):
        trainer.run(tmp_path, stop=7)  # in its last, short epoch
    path = tmp_path / "backup" / "latest.weights.h5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    seen = trainer.run(tmp_path)
    assert len(seen) == STEPS - 3 and all(map(same, seen, whole[1][3:]))
    averaged = [keras.models.load_model(x / "averaged.keras") for x in (tmp_path, whole[0])]
    assert same(*(model.get_weights() for model in averaged))
    logs = [pd.read_csv(x / "log.csv").drop(columns="seconds") for x in (tmp_path, whole[0])]
    assert logs[0].epoch.tolist() == [0, 1, 1, 2]
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

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer.model, "save_weights", stop)
        trainer.run(tmp_path)
    seen = trainer.run(tmp_path)
    assert len(seen) == STEPS - 3 and all(map(same, seen, whole[1][3:]))
