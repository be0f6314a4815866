"""Lesson 2: the network, training that is interrupted, and counting."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebooks_py import ch2_cnn as ch2
from notebooks_py.ch1_captcha_preview import CaptchaSequence, encode, fingerprint, one_hot

TRAIN = Path(__file__).parent / "train_tiny_cnn.py"


@pytest.fixture(scope="module")
def full() -> keras.Model:
    return ch2.build_cnn()


def test_architecture_is_the_originals(full):
    assert full.count_params() == 2_653_360
    assert full.input_shape == (None, 64, 128, 3)
    assert full.output_names == ["c1", "c2", "c3", "c4"]
    assert full.output_shape == [(None, 36)] * 4
    kinds = [type(layer).__name__ for layer in full.layers]
    block = ["Conv2D", "BatchNormalization", "Activation"] * 2 + ["MaxPooling2D"]
    assert kinds == ["InputLayer", *block * 5, "Flatten", *["Dense"] * 4]
    convs = [layer for layer in full.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [conv.filters for conv in convs] == [32, 32, 64, 64, 128, 128, 256, 256, 256, 256]
    assert {(conv.kernel_size, conv.padding) for conv in convs} == {((3, 3), "same")}
    assert {type(conv.kernel_initializer).__name__ for conv in convs} == {"HeUniform"}
    assert full.get_layer("block5_pool").output.shape == (None, 2, 4, 256)
    assert {full.get_layer(f"c{i}").activation.__name__ for i in range(1, 5)} == {"softmax"}


def test_arguments_reach_the_network():
    model = ch2.build_cnn(
        96, 32, 6, 10, filters=(4, 8), convs=1, kernel=5, init="zeros", momentum=0.5
    )
    assert model.input_shape == (None, 32, 96, 3)
    assert model.output_shape == [(None, 10)] * 6
    conv, norm = model.get_layer("block1_conv1"), model.get_layer("block2_norm1")
    assert (conv.kernel_size, norm.momentum) == ((5, 5), 0.5)
    assert not np.any(conv.get_weights()[0])


def test_a_picture_too_small_for_the_blocks_is_refused():
    with pytest.raises(ValueError, match="128x16 pixels are too few for stride 1.*at least 32"):
        ch2.build_cnn(height=16)
    with pytest.raises(ValueError, match="at least 64 pixels"):
        ch2.build_cnn(height=32, stride=2)


def test_diagram_has_every_layer_with_its_shape(full):
    text = ch2.layer_graph(full).to_string()
    for layer in full.layers:
        assert f"{layer.name}\\n" in text or f"{layer.name}\n" in text
    assert "2 x 4 x 256" in text


def test_without_dot_the_committed_diagram_is_shown(full, monkeypatch, tmp_path):
    monkeypatch.setattr(ch2.shutil, "which", lambda name: None)
    path = ch2.diagram(full, tmp_path)
    assert path.name == "cnn.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.iterdir())


# Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17
# (1998), table I, method 3 (score without continuity correction).
@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_published_values(right, n, low, high):
    assert ch2.wilson(right, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_mirrors(case):
    right, n = case
    low, high = ch2.wilson(right, n)
    assert 0 <= low <= right / n <= high <= 1
    assert ch2.wilson(n - right, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("right", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(right, n):
    with pytest.raises(ValueError, match=f"{right} right out of {n}"):
        ch2.wilson(right, n)


def truth() -> list[str]:
    return [text for _, texts in ch2.draw_test_set("classic-1k") for text in texts]


def test_evaluate_counts_what_is_right():
    texts = truth()
    answers = list(texts)
    wrong = {3: "", 10: "ABCDE", 500: texts[500] + "X", 999: "?" + texts[999][1:]}
    for place, text in wrong.items():
        answers[place] = text
    queue = iter(answers)
    score = ch2.evaluate(lambda pictures: [next(queue) for _ in pictures])
    assert (score.n, score.right) == (1000, 996)
    hits = [
        [a == b for a, b in zip(t, s.ljust(4), strict=False)]
        for t, s in zip(texts, answers, strict=True)
    ]
    assert score.right_by_position == tuple(np.sum(hits, axis=0))
    assert "996 of 1,000 right, 99.60%" in str(score)


def test_test_sets_are_fixed_nested_and_nobody_elses():
    first, _ = next(ch2.draw_test_set("classic-1k"))
    longer, texts = next(ch2.draw_test_set("classic-10k"))
    assert np.array_equal(first, longer)
    assert fingerprint(longer, encode(texts)) == (
        "933f99b80224a807377e8d0551ea65b59e4f60e03ee5c42fb3b5c1871dee4378"
    )
    with pytest.raises(ValueError, match="no test set 'classic': there are classic-100"):
        ch2.draw_test_set("classic")


def test_reading_follows_the_heads():
    """A network that always sees the same text: its biases say so."""
    model = ch2.build_cnn(filters=(4, 4), convs=1)
    for head, place in zip(model.output_names, encode(["K0O9"])[0], strict=True):
        layer = model.get_layer(head)
        layer.set_weights([0 * layer.get_weights()[0], 9 * one_hot(np.array([[place]]))[0][0]])
    pictures, _ = CaptchaSequence(3, 1, seed=1).draw(0)
    assert ch2.read_heads(model, pictures) == ["K0O9"] * 3
    with pytest.raises(ValueError, match="uint8"):
        ch2.read_heads(model, pictures / 255)
    with pytest.raises(ValueError, match=r"\(n, 64, 128, 3\)"):
        ch2.read_heads(model, pictures[:, :32])


def test_saved_model_is_bare_and_whole(full, tmp_path):
    ch2.compile_cnn(full, 1e-3)
    full.optimizer.build(full.trainable_variables)
    path = ch2.save_model(full, tmp_path / "cnn.keras")
    assert 4 * full.count_params() < path.stat().st_size < 10.9e6
    loaded = keras.models.load_model(path)
    assert all(map(np.array_equal, loaded.get_weights(), full.get_weights()))
    assert [file.name for file in tmp_path.iterdir()] == ["cnn.keras"]


# --- training that is interrupted ---------------------------------------------------------------


def train(folder: Path, *arguments: str, **kwargs) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, TRAIN, str(folder), *arguments], capture_output=True, text=True, **kwargs
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    run = train(folder)
    assert run.returncode == 0, run.stderr[-2000:]
    return folder


def weights(folder: Path) -> list[np.ndarray]:
    return keras.models.load_model(folder / "final.keras").get_weights()


def test_a_log_has_one_line_for_each_epoch_of_both_stages(uninterrupted):
    log = ch2.read_log(uninterrupted)
    assert log.epoch.tolist() == [0, 1, 2, 3, 4]
    assert log.stage.tolist() == [1, 1, 1, 2, 2]
    assert log.learning_rate.tolist() == [1e-3] * 3 + [1e-4] * 2
    assert {"loss", "val_loss", "c1_accuracy", "val_c4_accuracy"} <= set(log.columns)
    kept = sorted(path.name for path in uninterrupted.glob("*-*.keras"))
    best = int(log.val_loss.idxmin()) + 1
    assert kept == [f"best-{best:04d}.keras", "epoch-0005.keras"]


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_killed_training_resumes_as_if_nothing_had_happened(uninterrupted, tmp_path, epochs):
    """Kill a real process without warning once `epochs` lines are in its log, in either stage."""
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, TRAIN, str(folder), "slowly"], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (folder / "log.csv").exists() and len(ch2.read_log(folder)) >= epochs:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = ch2.read_log(folder)
    assert epochs <= len(before) < 5, "killed too late to show anything"
    assert not (folder / "final.keras").exists()
    run = train(folder, "resume")
    assert run.returncode == 0, run.stderr[-2000:]
    after = ch2.read_log(folder)
    pd.testing.assert_frame_equal(after.head(len(before)), before)
    pd.testing.assert_frame_equal(after, ch2.read_log(uninterrupted))
    assert all(map(np.array_equal, weights(folder), weights(uninterrupted)))


def test_runs_are_neither_overwritten_nor_mixed(uninterrupted):
    before = {path: path.read_bytes() for path in uninterrupted.iterdir()}
    for arguments, words in [
        ((), "holds a run: pass resume=True"),
        (("resume", "seed=4"), "data.seed is 4, but the run"),
    ]:
        run = train(uninterrupted, *arguments)
        assert run.returncode != 0
        assert words in run.stderr.splitlines()[-1]
    assert {path: path.read_bytes() for path in uninterrupted.iterdir()} == before


def test_there_must_be_a_run_to_resume(tmp_path):
    with pytest.raises(FileNotFoundError, match="no run to resume"):
        ch2.open_run(tmp_path, {}, resume=True)
    with pytest.raises(FileNotFoundError, match=r"no training log .*log\.csv"):
        ch2.read_log(tmp_path)


def test_half_a_line_does_not_count_and_is_cut_off(tmp_path):
    ch2.open_run(tmp_path, {"a": 1}, resume=False)
    log = tmp_path / "log.csv"
    assert ch2.read_log(tmp_path).empty
    log.write_text("epoch,sta")
    assert ch2.read_log(tmp_path).empty
    whole = "epoch,stage,val_loss\n0,1,14.2\n1,1,13.9\n"
    log.write_text(whole + "2,1,1")
    assert ch2.read_log(tmp_path).val_loss.tolist() == [14.2, 13.9]
    ch2.open_run(tmp_path, {"a": 1}, resume=True)
    assert log.read_text() == whole
    assert json.loads((tmp_path / "run.json").read_text()) == {"a": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [("a,b\n1,2\n", "no log of these lessons"), ("epoch,stage,val_loss\n0,1,2\n2,1,2\n", "epochs")],
)
def test_other_files_are_no_logs(tmp_path, text, words):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        ch2.read_log(tmp_path)


# Keras compares losses as what they are, float32 numbers.
LOSSES = st.floats(0, 20, width=32, allow_subnormal=False)


@given(st.lists(LOSSES, min_size=1, max_size=12), st.integers(1, 4), st.data())
def test_patience_survives_an_interruption(losses, patience, data):
    """Stopping after `cut` epochs and going on ends training at the same epoch."""

    def stops_at(earlier: list[float], later: list[float]) -> int | None:
        stopping = ch2.PatientStopping(patience, earlier)
        stopping.set_model(keras.Sequential())
        stopping.model.stop_training = False
        stopping.on_train_begin()
        for epoch, loss in enumerate(later, len(earlier)):
            stopping.on_epoch_end(epoch, {"val_loss": loss})
            if stopping.model.stop_training:
                return epoch
        return None

    whole = stops_at([], losses)
    cut = data.draw(st.integers(0, len(losses) if whole is None else whole))
    assert stops_at(losses[:cut], losses[cut:]) == whole
    if whole is not None:
        assert ch2.waited(losses[: whole + 1]) >= patience
