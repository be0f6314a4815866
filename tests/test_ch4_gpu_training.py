"""Lesson 4: which device, whose memory, how fast; sets, recipes, and runs that are interrupted."""

import contextlib
import hashlib
import importlib.util
import json
import os
import random
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import bench as bench_tool
import keras
import numpy as np
import options
import pandas as pd
import pytest
import train as train_tool

from notebooks_py import ch2_cnn as ch2
from notebooks_py import ch3_ctc as ch3
from notebooks_py import ch4_gpu_training as ch4
from notebooks_py.ch1_captcha_preview import CaptchaSequence


@pytest.mark.parametrize(
    ("gpus", "words"),
    [
        (["cpu:0"], "CPU"),
        (["gpu:0"], "GPU (gpu:0)"),
        (["gpu:0", "gpu:1"], "GPU (gpu:0, one of 2)"),
    ],
)
def test_the_device_is_named(monkeypatch, gpus, words):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: gpus)
    assert ch4.device() == words


def test_memory_growth_is_asked_for_on_every_gpu(monkeypatch):
    import tensorflow as tf

    asked = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["first", "second"])
    monkeypatch.setattr(
        tf.config.experimental, "set_memory_growth", lambda gpu, on: asked.append((gpu, on))
    )
    assert ch4.grow_memory() == "TensorFlow takes memory as it needs it on 2 GPUs"
    assert asked == [("first", True), ("second", True)]


def test_too_late_for_memory_growth_says_what_to_do(monkeypatch):
    import tensorflow as tf

    def refuse(gpu, on):
        raise RuntimeError("Physical devices cannot be modified after being initialized")

    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [gpu])
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", refuse)
    with pytest.raises(RuntimeError, match=r"GPU:0 is in use already: restart the kernel"):
        ch4.grow_memory()


@pytest.mark.parametrize(
    ("backend", "preallocate", "words"),
    [
        ("jax", "false", "JAX takes memory as it needs it"),
        ("jax", "", "set XLA_PYTHON_CLIENT_PREALLOCATE=false"),
        ("torch", "", "torch takes GPU memory as it needs it"),
    ],
)
def test_other_backends_get_a_sentence_of_their_own(monkeypatch, backend, preallocate, words):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", preallocate)
    assert words in ch4.grow_memory()


def test_feeding_speed_does_not_count_the_compilation(monkeypatch):
    now = [0.0]

    def fit(model, data, *rest, **kwargs):
        now[0] += 2.0 if isinstance(data, CaptchaSequence) else 100.0  # an epoch, or one batch

    monkeypatch.setattr(ch4.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(keras.Model, "fit", fit)
    assert ch4.feeding_speed(CaptchaSequence(4, 3, 1)) == pytest.approx(4 * 3 / 2)


# A set rendered once.

SMALL = {"width": 64, "height": 32}


def small(steps=4, seed=1, **options):
    return CaptchaSequence(3, steps, seed, **SMALL, **options)


@pytest.fixture
def drawn_here(monkeypatch):
    """Draw in this process: to start others takes seconds, and one test does that."""
    monkeypatch.setattr(
        ch4, "draw_ahead", lambda source, processes: map(source.draw, range(len(source)))
    )


def test_processes_render_the_batches_that_were_asked_for(tmp_path):
    folder = ch4.render_set(small(), tmp_path / "set", processes=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]
    looked_up = ch4.RenderedSequence(folder, 3, 4, 1, **SMALL)
    for index in range(4):
        (a, texts), (b, expected) = looked_up.draw(index), small().draw(index)
        assert texts == expected and np.array_equal(a, b)
        assert all(map(np.array_equal, looked_up[index][1], small()[index][1]))


def test_one_process_draws_the_same_set_here(tmp_path, monkeypatch):
    monkeypatch.setattr(ch4, "ProcessPoolExecutor", None)  # to start one would fail
    folder = ch4.render_set(small(), tmp_path / "set", processes=1)
    pictures = np.load(folder / "pictures.npy")
    assert np.array_equal(pictures[3:6], small().draw(1)[0])


@pytest.mark.parametrize(("batch", "steps"), [(6, 2), (4, 3), (1, 12), (5, 2)])
def test_a_set_comes_in_batches_of_any_size(tmp_path, drawn_here, batch, steps):
    folder = ch4.render_set(small(), tmp_path / "set")
    looked_up = ch4.RenderedSequence(folder, batch, steps, 1, **SMALL)
    mine = [looked_up.draw(index) for index in range(steps)]
    theirs = [small().draw(index) for index in range(4)]
    texts, expected = ([text for _, these in side for text in these] for side in (mine, theirs))
    assert texts == expected[: batch * steps]
    pictures, all_of_them = (np.concatenate([p for p, _ in side]) for side in (mine, theirs))
    assert np.array_equal(pictures, all_of_them[: batch * steps])


def test_an_interrupted_set_does_not_exist(tmp_path, monkeypatch):
    def interrupted(source, processes):
        yield source.draw(0)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ch4, "draw_ahead", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ch4.render_set(small(), tmp_path / "set")
    assert not (tmp_path / "set").exists()
    monkeypatch.setattr(ch4, "draw_ahead", lambda source, processes: map(source.draw, range(4)))
    ch4.render_set(small(), tmp_path / "set")  # what is left of the first does no harm
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_a_set_is_not_overwritten(tmp_path, drawn_here):
    folder = ch4.render_set(small(), tmp_path / "set")
    before = (folder / "pictures.npy").read_bytes()
    with pytest.raises(FileExistsError, match="delete it to draw the set anew"):
        ch4.render_set(small(seed=2), tmp_path / "set")
    assert (folder / "pictures.npy").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((3, 4, 2), SMALL, "seed is 2, but the set in .* has 1: use that value"),
        ((3, 4, 1), {"width": 80, "height": 32}, "width is 80"),
        ((3, 5, 1), SMALL, "has 12 pictures, fewer than 15: ask for fewer"),
    ],
)
def test_a_set_of_something_else_is_refused(tmp_path, drawn_here, arguments, options, words):
    folder = ch4.render_set(small(), tmp_path / "set")
    with pytest.raises(ValueError, match=words):
        ch4.RenderedSequence(folder, *arguments, **options)


@pytest.mark.parametrize("batch", [0, 2, 3])
def test_a_damaged_set_is_refused(tmp_path, drawn_here, batch):
    folder = ch4.render_set(small(), tmp_path / "set")
    pictures = np.load(folder / "pictures.npy", mmap_mode="r+")
    pictures[3 * batch, 5, 5, 0] += 1
    pictures.flush()
    with pytest.raises(ValueError, match=f"batch {batch} in .*set is damaged"):
        ch4.RenderedSequence(folder, 3, 4, 1, **SMALL)


def test_a_missing_set_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="draw one with `make render OUT="):
        ch4.RenderedSequence(tmp_path / "none", 3, 4, 1, **SMALL)


# The recipe.


@pytest.mark.parametrize(("kind", "size"), [("cnn", "slim"), ("ctc", "slim"), ("ctc", "full")])
def test_sizes_are_built(kind, size):
    model = ch4.build(kind, size)
    assert model.name == kind
    assert (model.count_params() == 3_157_317) == (size == "full")


@pytest.mark.parametrize(
    ("kind", "size", "words"),
    [
        ("rnn", "slim", "kind='rnn': size 'slim' is there for cnn, ctc"),
        ("cnn", "XL", "size='XL': allowed are full, slim, gru"),
    ],
)
def test_other_sizes_are_refused(kind, size, words):
    with pytest.raises(ValueError, match=words):
        ch4.build(kind, size)


def test_the_rate_climbs_and_comes_to_rest():
    plan = ch4.rate_plan(100, peak=2e-3, warmup=0.1)
    rates = [float(plan(step)) for step in range(101)]
    assert rates[0] == 0 and max(rates) == pytest.approx(2e-3) and rates.index(max(rates)) == 10
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0, abs=1e-9)
    assert rates[55] == pytest.approx(1e-3)  # half way down


def test_a_first_step_is_traced_once():
    data = CaptchaSequence(2, 1, seed=1, labels="ctc")
    model = ch4.build("ctc", "slim", filters=(4, 4), convs=1, stride=4)
    ch4.compile_fast(model, steps=10)
    traced, step = [], model.train_step
    model.train_step = lambda data: traced.append(1) or step(data)
    model.fit(data, verbose=0)
    assert len(traced) == 1


def test_a_nap_is_no_training():
    run = types.SimpleNamespace(step=0, seconds=5.0, loss=0.0, source=small())
    bar = types.SimpleNamespace(update=lambda pictures: None)
    keeper = ch4.Keeper(run, bar, threading.Event(), every=1e9)
    keeper.last -= 3_600
    keeper.on_train_batch_end(0, {"loss": 1.0})
    assert run.seconds == 5 + ch4.PAUSE
    keeper.last -= 2
    keeper.on_train_batch_end(1, {"loss": 1.0})
    assert 2 <= run.seconds - 5 - ch4.PAUSE < 30 and run.step == 2


def test_steps_go_round():
    source = small(steps=3)
    data = ch4.Steps(source, 2, 7)
    assert len(data) == 5
    for index, batch in enumerate([2, 0, 1, 2, 0]):
        assert np.array_equal(data[index][0], source[batch][0])


# Where the time goes.


def test_operations_are_those_counted_by_hand():
    """3x3 kernels at every position of the five blocks, and a dense layer for each head."""
    channels = [3, 32, 32, 64, 64, 128, 128, 256, 256, 256, 256]
    sides = [(64, 128), (32, 64), (16, 32), (8, 16), (4, 8)]
    convolutions = sum(
        9 * channels[i] * channels[i + 1] * sides[i // 2][0] * sides[i // 2][1] for i in range(10)
    )
    assert ch4.operations(ch4.build("cnn", "full")) == 2 * (convolutions + 4 * 2048 * 36)


def test_operations_of_a_gru_are_counted_at_each_step():
    inputs = keras.Input((7, 5))
    gru = keras.layers.Bidirectional(keras.layers.GRU(3, return_sequences=True))
    model = keras.Model(inputs, gru(inputs))
    assert ch4.operations(model) == 2 * 7 * 2 * 3 * (5 * 3 + 3 * 3)


def test_traffic_is_what_each_layer_reads_and_writes():
    inputs = keras.Input((4, 4, 3))
    model = keras.Model(inputs, keras.layers.MaxPooling2D(2)(inputs))
    assert ch4.traffic(model) == 4 * (48 + 12)


def test_parts_of_a_step_are_medians_for_each_picture(monkeypatch):
    seconds = iter([4.0, 5.0, 2.0, 8.0])  # draw, whole batch, forward, step
    monkeypatch.setattr(ch4, "median_seconds", lambda action: next(seconds))
    parts = ch4.step_parts(None, small())
    assert parts == pytest.approx(
        {"draw": 4 / 3, "make arrays": 1 / 3, "forward": 2 / 3, "backward, update": 2}
    )


def test_the_median_leaves_the_first_call_out(monkeypatch):
    clock = iter([0, 1, 10, 12, 20, 29, 30, 30, 40, 48])
    monkeypatch.setattr(ch4.time, "perf_counter", lambda: next(clock))
    calls = []
    assert ch4.median_seconds(lambda: calls.append(1)) == 2
    assert len(calls) == 6


def test_actions_are_compared_in_turn(monkeypatch):
    calls, now = [], [0.0]

    def action(name, seconds):
        def act():
            calls.append(name)
            now[0] += seconds * (1 if len(calls) < 5 else 10)  # then the machine slows down

        return act

    monkeypatch.setattr(ch4.time, "perf_counter", lambda: now[0])
    found = ch4.compare({"a": action("a", 4.0), "b": action("b", 1.0)}, pictures=80, repeats=5)
    assert calls == ["a", "b"] * 6
    assert found["ratio"] == {"a": 1.0, "b": 4.0}  # whatever the machine did
    assert found["pictures_a_second"] == {"a": 2.0, "b": 8.0} and found["repeats"] == 5


# Precision.


@pytest.mark.parametrize(
    ("plain", "mixed", "policy"),
    [
        ([1.0] * 5, [0.5] * 5, "mixed_bfloat16"),
        ([1.0] * 5, [0.95] * 5, "float32"),  # not worth it
        ([1.0] * 5, [9.0] * 5, "float32"),
        ([1.0, 1.0, 9.0, 9.0, 1.0], [0.5, 0.5, 4.5, 4.5, 0.5], "mixed_bfloat16"),  # noise in both
    ],
)
def test_mixed_precision_has_to_win(monkeypatch, plain, mixed, policy):
    monkeypatch.setattr(ch4, "one_step", lambda kind, size, name, data: name)
    monkeypatch.setattr(
        ch4, "side_by_side", lambda actions: dict(zip(actions, (plain, mixed), strict=True))
    )
    assert ch4.fastest_policy("ctc", "slim", small()) == policy


def test_a_precision_ends_with_its_block():
    with pytest.raises(ZeroDivisionError), ch4.precision("mixed_bfloat16"):
        inside = ch4.build("cnn", "slim")
        raise ZeroDivisionError
    assert inside.get_layer("block1_conv1").compute_dtype == "bfloat16"
    assert inside.get_layer("c1").compute_dtype == "float32"
    assert ch4.build("cnn", "slim").get_layer("block1_conv1").compute_dtype == "float32"


# Several devices.


@pytest.mark.parametrize("devices", [2, 3, 5])
def test_a_batch_is_shared_equally(devices):
    ch4.check_shares(30, devices)
    with pytest.raises(ValueError, match=f"a batch of 31 .* between {devices} devices: use a mult"):
        ch4.check_shares(31, devices)


def losses_on(devices, backend, kind, *words):
    script = Path(__file__).parent / "train_on_two_devices.py"
    run = subprocess.run(
        [sys.executable, script, kind, str(devices), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["used"] == found["copies"] == devices
    return [*found["losses"], found["after"]]


@pytest.mark.parametrize("kind", ["cnn", "ctc"])
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_train_as_one(backend, kind):
    if not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    *one, after_one = losses_on(1, backend, kind)
    *two, after_two = losses_on(2, backend, kind)
    assert len(one) == 4 and len(set(one)) == 4
    assert two == pytest.approx(one, rel=1e-4)
    # After training, norms use running means, which a bias in front of them moves. Its gradient is
    # nothing but rounding, of which AdamW makes whole steps.
    assert after_two == pytest.approx(after_one, rel=1e-2)


def test_without_shared_norms_two_devices_train_another_network():
    *one, _ = losses_on(1, "tensorflow", "cnn")
    *two, _ = losses_on(2, "tensorflow", "cnn", "apart")
    assert two != pytest.approx(one, rel=1e-3)


# A run that is interrupted.

TRAIN = Path(__file__).parent / "train_tiny_run.py"


def start(folder, *words):
    return subprocess.Popen(
        [sys.executable, TRAIN, folder, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err[-2000:]
    return out


def wait_for_state(folder, step):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if any(int(path.stem[6:]) >= step for path in folder.glob("state-*.keras")):
            return
        time.sleep(0.02)
    raise AssertionError(f"no state of step {step} or later in {folder}")


def weights(folder):
    return keras.models.load_model(folder / "final.keras").get_weights()


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    finish(start(folder))
    return folder


def test_a_run_killed_at_any_moment_ends_with_the_same_weights(never_stopped, tmp_path):
    folder = tmp_path / "run"
    process = start(folder, "slowly", "always")
    # Somewhere between two lines of the log, perhaps in the middle of writing a state.
    wait_for_state(folder, 7)
    time.sleep(random.Random().uniform(0, 0.3))
    process.kill()
    process.communicate()
    assert not (folder / "final.keras").exists(), "killed too late to show anything"
    assert "24 steps done" in finish(start(folder))
    assert all(map(np.array_equal, weights(folder), weights(never_stopped)))
    columns = ["epoch", "step", "pictures", "learning_rate", "loss", "val_loss", "val_acc"]
    mine, theirs = (pd.read_csv(path / "log.csv") for path in (folder, never_stopped))
    assert mine.step.tolist() == [6, 12, 18, 24]
    pd.testing.assert_frame_equal(mine[columns], theirs[columns])
    assert [path.name for path in sorted(folder.glob("state-*"))] == [
        "state-00000024.json",
        "state-00000024.keras",
    ]


def test_sigterm_saves_and_stops(never_stopped, tmp_path):
    folder = tmp_path / "run"
    process = start(folder, "slowly")
    deadline = time.monotonic() + 120
    while not (folder / "log.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)  # into the next stretch
    process.terminate()
    steps = int(finish(process).split()[0])
    assert 6 <= steps < 24
    assert (folder / f"state-{steps:08d}.keras").exists()
    assert "24 steps done" in finish(start(folder))
    assert all(map(np.array_equal, weights(folder), weights(never_stopped)))


def test_a_run_killed_between_a_step_and_its_line_goes_on(tmp_path, monkeypatch):
    def run_in(folder):
        folder.mkdir(exist_ok=True)
        keras.utils.set_random_seed(3)
        run = ch4.Run(build_tiny(), small(steps=6), folder, 6, lines=3)
        return run, small(steps=1, split="valid")[0]

    alone, valid = run_in(tmp_path / "alone")
    ch4.train(alone, valid)
    killed, valid = run_in(tmp_path / "killed")
    with monkeypatch.context() as patch:
        patch.setattr(ch4, "held_out", lambda *_: 1 / 0)  # dies where the line would be written
        with pytest.raises(ZeroDivisionError):
            ch4.train(killed, valid, every=0.0)
    assert [path.name for path in (tmp_path / "killed").glob("*.keras")] == ["state-00000002.keras"]
    resumed, valid = run_in(tmp_path / "killed")
    assert ch4.train(resumed, valid)
    for mine, theirs in zip(resumed.rows, alone.rows, strict=True):
        assert {**mine, "seconds": 0} == pytest.approx({**theirs, "seconds": 0})
    weights = zip(resumed.model.get_weights(), alone.model.get_weights(), strict=True)
    assert all(np.array_equal(a, b) for a, b in weights)


def test_a_log_is_one_of_lesson_2(never_stopped):
    log = ch2.read_log(never_stopped)
    assert log.pictures.tolist() == [24, 48, 72, 96]
    assert np.isfinite(log[["loss", "val_loss"]]).all(axis=None) and log.val_acc.between(0, 1).all()
    assert log.learning_rate.iloc[-1] < log.learning_rate.max() / 10


def test_a_damaged_state_is_named(tmp_path):
    model = build_tiny()
    run = ch4.Run(model, small(), tmp_path, 4)
    ch4.save_state(run)
    (state,) = tmp_path.glob("state-*.keras")
    state.write_bytes(state.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"state-00000000.keras is damaged .*start a new run"):
        ch4.load_state(run)


def build_tiny():
    model = ch2.build_cnn(64, 32, filters=(4,), convs=1)
    ch4.compile_fast(model, 4)
    return model


def test_an_interrupted_save_leaves_the_state_before(tmp_path, monkeypatch):
    run = ch4.Run(build_tiny(), small(), tmp_path, 4)
    ch4.load_state(run)  # there is none; the optimiser is made ready
    ch4.save_state(run)
    run.step = 2
    with monkeypatch.context() as patch:
        patch.setattr(ch4.os, "replace", lambda *paths: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            ch4.save_state(run)
    run.step = 3
    ch4.load_state(run)
    assert run.step == 0


# `make train`.


def test_a_full_training_is_written_down(tmp_path, monkeypatch, capsys):
    slim = {"filters": (4, 4, 4, 4), "convs": 1, "stride": 2, "rnn": ()}
    monkeypatch.setitem(ch4.SIZES["slim"], "ctc", slim)
    monkeypatch.setattr(ch4, "VALID", 8)
    # Mixed precision in training must not show in what is kept.
    monkeypatch.setattr(ch4, "fastest_policy", lambda kind, size, source: "mixed_bfloat16")
    source = CaptchaSequence(4, 3, 5, labels="ctc")
    folder = tmp_path / "out"
    results = ch4.full_training("ctc", "slim", source, 3, folder, test_set="classic-100")
    assert results == json.loads((folder / "results.json").read_text())
    assert (results["n"], results["pictures"], results["settings"]["seed"]) == (100, 12, 5)
    model = (folder / "model.keras").read_bytes()
    assert results["sha256"] == hashlib.sha256(model).hexdigest() and results["bytes"] == len(model)
    assert results["settings"]["precision"] == "mixed_bfloat16"
    assert "start" not in results["settings"]
    reader = keras.models.load_model(folder / "model.keras")
    assert {layer.compute_dtype for layer in reader.layers} == {"float32"}
    score = ch2.evaluate(lambda pictures: ch3.read_ctc(reader, pictures), "classic-100")
    assert score.right == results["right"]
    with pytest.raises(FileExistsError, match="pass resume=True"):
        ch4.full_training("ctc", "slim", source, 3, folder)
    with pytest.raises(ValueError, match="steps is 4, but the run"):
        ch4.full_training("ctc", "slim", source, 4, folder, resume=True)
    # What is measured on this machine comes after what is wrong with the folder.
    monkeypatch.setattr(ch4, "fastest_policy", lambda kind, size, source: 1 / 0)
    with pytest.raises(FileExistsError):
        ch4.full_training("ctc", "slim", source, 3, folder)


def test_a_training_goes_on_from_finished_weights(tmp_path, monkeypatch):
    monkeypatch.setitem(ch4.SIZES["slim"], "cnn", {"filters": (4, 4), "convs": 1, "stride": 4})
    monkeypatch.setattr(ch4, "VALID", 8)
    monkeypatch.setattr(ch4, "fastest_policy", lambda kind, size, source: "float32")

    def trained(name, seed, start=None, **options):
        source, out = CaptchaSequence(4, 3, seed), tmp_path / name
        options = {"test_set": "classic-100", "start": start, **options}
        return ch4.full_training("cnn", "slim", source, 3, out, **options)

    first, weights = trained("a", 5), tmp_path / "a" / "model.keras"
    # At a rate of almost nothing, the weights are those that it started from.
    second = trained("b", 6, weights, peak=1e-30)
    pair = [keras.models.load_model(tmp_path / name / "model.keras") for name in "ab"]
    kernels = zip(*(model.trainable_weights for model in pair), strict=True)
    assert all(np.array_equal(a, b) for a, b in kernels)
    before = {"pictures": 12, "seconds": first["seconds"], "sha256": first["sha256"]}
    assert (second["pictures"], second["settings"]["start"]) == (12, before)
    third = trained("c", 7, tmp_path / "b" / "model.keras")
    assert third["settings"]["start"]["pictures"] == 24
    with pytest.raises(ValueError, match="start is .*, but the run in"):
        trained("c", 7, weights, resume=True)
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="model.keras is damaged or not the one of"):
        trained("d", 8, weights)
    with pytest.raises(FileNotFoundError, match="no .*none.keras: start from a model.keras"):
        trained("d", 8, tmp_path / "none.keras")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("MODEL=rnn", "MODEL=rnn must be one of cnn, ctc"),
        ("MODEL=", "MODEL= must be one of cnn, ctc"),
        ("BATCH=0", "BATCH=0 must be a whole number of at least 1"),
        ("SIZE=XL", "SIZE=XL must be one of full, slim"),
        ("BUDGET=soon", "BUDGET=soon must be minutes as in 20min, or pictures as in 300000"),
        ("BUDGET=0", "BUDGET=0 must be minutes"),
        ("RATE=2", "RATE=2 must be a number between 0 and 1, such as 0.002"),
        ("RATE=0.0", "RATE=0.0 must be a number between 0 and 1"),
        ("SEED=-1", "SEED=-1 must be a whole number of at least 0"),
        ("STEPS=3", "STEPS is not an option; the options are MODEL, SIZE, BUDGET"),
    ],
)
def test_make_train_refuses_what_it_does_not_know(word, message):
    with pytest.raises(SystemExit, match=f"train: {message}"):
        options.read([word], "train", train_tool.DEFAULTS, train_tool.ALLOWED)


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="jax is not installed")
def test_training_needs_neither_tensorflow_nor_jupyter():
    """keras on JAX, captcha, numpy and tqdm are enough to import all that `make train` uses."""
    missing = ["tensorflow", "pandas", "pydot", "matplotlib", "IPython", "jupytext", "papermill"]
    code = f"import sys; sys.modules.update(dict.fromkeys({missing}))\n"
    code += "import notebooks_py.ch4_gpu_training as ch4; print(ch4.build('ctc', 'slim').name)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": "jax"},
    )
    assert run.stdout == "ctc\n", run.stderr[-2000:]


def run_tool(name, *words, **environment):
    return subprocess.run(
        [sys.executable, Path(train_tool.__file__).with_name(f"{name}.py"), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


ROOT = Path(train_tool.__file__).parents[1]


@pytest.fixture(scope="module")
def tiny_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sets") / "tiny"
    words = (f"OUT={folder}", "PICTURES=100", "SEED=4", "BATCH=8", "PROCESSES=1")
    run = run_tool("render", *words)
    assert run.returncode == 0 and f"written: {folder}, 104 pictures" in run.stdout, run.stderr
    again = run_tool("render", *words)
    assert again.returncode == 1 and "delete it to draw the set anew" in again.stderr
    assert "Traceback" not in again.stderr
    return folder


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="jax is not installed")
def test_make_train_runs_on_jax_without_tensorflow(tiny_set, tmp_path):
    """The command as a machine with JAX alone would run it; the set is shorter than the run."""
    block = tmp_path / "block"
    block.mkdir()
    for name in ("tensorflow", "pandas", "pydot", "matplotlib", "IPython", "jupytext"):
        (block / f"{name}.py").write_text(f"raise ImportError('no {name} here')")
    out = tmp_path / "out"
    words = ("MODEL=ctc", "BUDGET=160", f"FEED={tiny_set}", "SEED=4", "BATCH=8", f"OUT={out}")
    path = os.pathsep.join([str(block), str(ROOT)])
    # The test set of 10,000 would take minutes.
    code = "import sys, functools; sys.path.insert(0, 'tools'); import train\n"
    code += "from notebooks_py import ch4_gpu_training as ch4\n"
    code += "ch4.VALID = 8; keep = ch4.full_training\n"
    code += "ch4.full_training = functools.partial(keep, test_set='classic-100')\n"
    code += "sys.exit(train.main())"
    run = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    results = json.loads((out / "results.json").read_text())
    assert (results["backend"], results["pictures"], results["n"]) == ("jax", 160, 100)
    assert len(pd.read_csv(out / "log.csv")) == 20


# What pays.


def test_averages_are_those_of_numpy(tmp_path):
    model, valid = build_tiny(), small(steps=1, split="valid")[0]
    seen = []
    averages = ch4.Averages(valid, batch=3, window=30)
    note = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(model.get_weights())
    )
    model.fit(small(), shuffle=False, verbose=0, callbacks=[note, averages])
    expected = seen[0]
    for weights in seen[1:]:
        expected = [0.9 * a + 0.1 * b for a, b in zip(expected, weights, strict=True)]
    assert all(np.allclose(a, b) for a, b in zip(averages.mean, expected, strict=True))
    # The network itself is left as it was.
    assert all(map(np.array_equal, model.get_weights(), seen[-1]))
    model.set_weights(averages.mean)
    assert averages.rows == [pytest.approx(ch4.held_out(model, *valid))]


@pytest.mark.parametrize("name", list(ch4.RECIPES))
def test_each_recipe_is_another_network_or_another_training(name):
    recipe, plain = (ch4.Recipe(**ch4.RECIPES[x]) for x in (name, "the recipe"))
    model, reference = recipe.build(100), plain.build(100)

    def facts(recipe, model):
        optimizer = model.optimizer
        rate = [round(float(optimizer.learning_rate), 6)]
        optimizer.iterations.assign(50)
        rate.append(round(float(optimizer.learning_rate), 6))
        return recipe.batch, model.count_params(), type(optimizer).__name__, rate

    same = facts(recipe, model) == facts(plain, reference)
    assert same == (name == "the recipe")


def test_the_ablation_keeps_rows_that_are_done(tiny_set, tmp_path):
    out = tmp_path / "ablation.json"
    words = (f"FEED={tiny_set}", "SEED=4", "PICTURES=96", "VALID=10", f"OUT={out}")
    first = run_tool("ablate", *words, "ROWS=with a GRU")
    assert first.returncode == 0, first.stderr[-2000:]
    row = json.loads(out.read_text())["with a GRU"]
    assert row["pictures"] == [32, 64, 96] and row["n"] == 10
    assert len(row["right"]) == len(row["right_averaged"]) == 3
    out.write_text(json.dumps({"with a GRU": {"kept": True}}))
    second = run_tool("ablate", *words, "ROWS=withaGRU,the recipe")
    assert second.returncode == 0, second.stderr[-2000:]
    rows = json.loads(out.read_text())
    assert list(rows) == ["the recipe", "with a GRU"] and rows["with a GRU"] == {"kept": True}
    wrong = run_tool("ablate", *words, "ROWS=magic")
    assert wrong.returncode == 1 and "no recipe 'magic'; there are: the recipe, " in wrong.stderr


# What a machine can do.


def test_make_bench_writes_ratios_down(tmp_path):
    """All groups with tiny networks; the process of the group on memory takes the slim one."""
    out = tmp_path / "bench.json"
    code = "import sys; sys.path.insert(0, 'tools'); import bench\n"
    code += "from notebooks_py import ch4_gpu_training as ch4\n"
    code += "tiny = {'filters': (4, 4, 4), 'convs': 1, 'stride': 2}\n"
    code += "ch4.SIZES = dict.fromkeys(ch4.SIZES, {'cnn': tiny, 'ctc': {**tiny, 'rnn': ()}})\n"
    code += "ch4.RECIPES = {name: ch4.RECIPES[name] for name in ('the recipe', 'batches of 128')}\n"
    code += "bench.main()"

    def bench(*words, **environment):
        return subprocess.run(
            [sys.executable, "-c", code, f"OUT={out}", "BATCH=4", "STEPS=2", *words],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**plain, "PYTHONPATH": str(ROOT), **environment},
        )

    plain = {name: value for name, value in os.environ.items() if "MALLOC" not in name}
    run = bench(MALLOC_TOP_PAD_="1000000")
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(out.read_text())
    assert list(found["groups"]) == [group.__name__ for group in bench_tool.GROUPS]
    for group in bench_tool.GROUPS:
        measured = found["groups"][group.__name__]
        ratios, speeds = measured["ratio"], measured["pictures_a_second"]
        assert list(ratios) == list(speeds) and len(ratios) >= 2 and measured["repeats"] == 5
        assert next(iter(ratios.values())) == 1 and min(*ratios.values(), *speeds.values()) > 0
    few = bench("REPEATS=4")
    assert few.returncode == 1 and "REPEATS=4 must be a whole number of at least 5" in few.stderr


def test_the_memory_group_needs_the_variables_of_make(monkeypatch):
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    with contextlib.ExitStack() as stack, pytest.raises(SystemExit, match="`make bench`"):
        bench_tool.memory(4, 1, 1, stack)


def test_only_one_of_the_two_processes_keeps_memory(monkeypatch):
    monkeypatch.setenv("MALLOC_TOP_PAD_", "1000000")
    started, start = [], bench_tool.process
    monkeypatch.setattr(bench_tool, "process", lambda: started.append(start()) or started[-1])
    with contextlib.ExitStack() as stack:
        names = list(bench_tool.memory(4, 1, 1, stack)[1])
        kept, given = (pool.submit(os.getenv, "MALLOC_TOP_PAD_").result() for pool in started)
    assert names == ["memory given back", "memory kept"]
    assert (kept, given) == ("1000000", None) and os.environ["MALLOC_TOP_PAD_"] == "1000000"
