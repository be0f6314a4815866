"""Lesson 4: Muon, the recipe, averaged weights, and a state that is written whole or not at all."""

from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from captcha_reader.practice import Practice
from captcha_reader.texts import ctc_labels
from captcha_reader.training import Resume, settle_norms
from notebooks_py import ch4_gpu_training as ch4
from tools.networks import NETWORKS

TINY = {"filters": (4, 8), "convs": 1, "stride": 4, "momentum": 0.9, "norms": "once"}
PRACTICE = Practice(1, batch=4, epoch=12, nothing=0, colors=2)
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


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> SimpleNamespace:
    """Train a tiny network by the recipe; return what goes in, and the weights after each step."""
    keras.utils.set_random_seed(1)
    (pictures, texts), seen = PRACTICE(100), []
    held = pictures, ctc_labels(texts), texts
    held_out = {"sizes": [(pictures[:2], None, texts[:2])], "classic": [held]}
    answers = [texts[0], "wrong", *texts[2:]]
    model = ch4.build_ctc(**TINY)
    ch4.compile_recipe(model, STEPS)
    model.optimizer.build(model.trainable_variables)
    start = [value.numpy() for value in model.variables + model.optimizer.variables]
    data = ch4.PracticeSequence(PRACTICE)
    data.workers = 4  # threads, any of which may be ready first
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(model.get_weights())
    )
    folder = tmp_path_factory.mktemp("run")
    ch4.fit_recipe(model, data, STEPS, held_out, folder, [note], lambda x: answers[: len(x)])
    return SimpleNamespace(folder=folder, model=model, start=start, data=data, seen=seen, held=held)


def test_fit_takes_the_batches_in_order_and_averaging_leaves_it_alone(run):
    for variable, value in zip(
        run.model.variables + run.model.optimizer.variables, run.start, strict=True
    ):
        variable.assign(value)
    run.data.epoch = 0
    assert len(run.seen) == STEPS
    for number, weights in enumerate(run.seen):  # one batch after another
        run.model.train_on_batch(*run.data[number])
        assert all(map(np.array_equal, run.model.get_weights(), weights))


def test_the_file_is_the_average_and_reads_as_logged(run):
    model = keras.models.load_model(run.folder / "averaged.keras")
    assert not model.compiled
    model.compile(loss=keras.losses.CTC())
    log = pd.read_csv(run.folder / "log.csv")
    assert log.epoch.tolist() == [0, 1, 2]
    assert (log.val_acc == 3 / 4).all() and (log.val_sizes == 1 / 2).all()  # by kind
    pictures, labels, _ = run.held
    loss = model.evaluate(pictures.astype("float32") / 255, labels, verbose=0)
    assert log.val_loss.iloc[-1] == pytest.approx(loss, rel=1e-5)
    # In so few steps the average keeps one half, from the first step on.
    expected = run.seen[0]
    for weights in run.seen[1:]:
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


def test_ctrl_c_while_the_state_is_written_leaves_the_one_before(run, tmp_path, monkeypatch):
    def stop(path):
        Path(path).write_bytes(b"half a state")
        raise KeyboardInterrupt

    resume = Resume(tmp_path, steps=3)
    resume.set_model(run.model)
    resume.on_epoch_end(0)
    before = resume.state.read_bytes()
    monkeypatch.setattr(run.model, "save_weights", stop)
    with pytest.raises(KeyboardInterrupt):
        resume.on_epoch_end(1)
    assert resume.state.read_bytes() == before
