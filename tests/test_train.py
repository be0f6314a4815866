"""make train: interrupted in every way, it goes on to the same weights; what it refuses."""

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import options
import pytest
import train
from train_tiny import PATCHES

from captcha_reader.weights import sha256

ROOT = Path(train.__file__).parents[1]
TINY = Path(__file__).parent / "train_tiny.py"
WORDS = ["MODEL=cnn", "BUDGET=60", "BATCH=4", "SEED=5", "PRECISION=float32"]  # 5 epochs of 3
STATES = ("backup/latest.weights.h5", "backup/latest.weights.h5.bkp")


def call(*words: str) -> int:
    """Run tools/train.py here, with a tiny network."""
    with pytest.MonkeyPatch.context() as patch:
        for place, name, value in PATCHES:
            patch.setattr(place, name, value)
        patch.setattr("sys.argv", ["train", *words])
        return train.main()


def refused(*words: str) -> str:
    """Return the one line with which the call ends; its exit code is 1 then."""
    with pytest.raises(SystemExit) as error:
        call(*words)
    assert isinstance(error.value.code, str) and "\n" not in error.value.code
    assert error.value.code.startswith("train: ") and len(error.value.code) < 300
    return error.value.code


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weights(folder: Path) -> list[np.ndarray]:
    return keras.models.load_model(folder / "model.keras").get_weights()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("train") / "whole"
    assert call(*WORDS, f"OUT={folder}") == 0
    return folder


def test_a_run_writes_down_what_it_did(whole):
    results = json.loads((whole / "results.json").read_text())
    assert (results["model"], results["size"], results["pictures"]) == ("cnn", "slim", 60)
    assert results["settings"]["BATCH"] == "4" and 0 <= results["classic-1k"] <= 100
    model = keras.models.load_model(whole / "model.keras")
    assert results["parameters"] == model.count_params() and not model.compiled
    assert results["sha256"] == sha256(whole / "model.keras")
    assert results["versions"]["captcha"] == "0.7.0" and results["cores"] == os.cpu_count()


def test_a_network_trains_further_in_half_precision_and_reads_without_it(whole, tmp_path):
    start = whole / "model.keras"
    words = ["MODEL=cnn", "BUDGET=4", "BATCH=4", "PRECISION=mixed_bfloat16", "RATE=0.0001"]
    assert call(*words, f"START={start}", f"OUT={tmp_path}") == 0
    assert json.loads((tmp_path / "results.json").read_text())["start"] == sha256(start)
    near = [np.abs(a - b).max() for a, b in zip(weights(tmp_path), weights(whole), strict=True)]
    assert 0 < max(near) < 1  # moved, from there
    model = keras.models.load_model(tmp_path / "model.keras")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    trained = keras.models.load_model(tmp_path / "averaged.keras")
    assert all(map(np.array_equal, model.get_weights(), trained.get_weights()))


def wait_for(folder: Path, epochs: int, process: subprocess.Popen) -> None:
    """Wait until so many epochs are in the log."""
    log, end = folder / "log.csv", time.monotonic() + 300
    while not log.exists() or log.read_text().count("\n") <= epochs:
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(f"epoch {epochs} did not come: {process.communicate()}")
        time.sleep(0.02)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The folder of a run that was killed, went on, and was stopped with Ctrl-C; and its words."""
    if os.name == "nt":
        pytest.skip("Windows has no such signals")
    folder, rng = tmp_path_factory.mktemp("train") / "interrupted", random.Random(1)
    # A shell starts what it runs in the background with SIGINT ignored, and children inherit that.
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    for epochs, how in [(1, signal.SIGKILL), (3, signal.SIGINT)]:
        process = subprocess.Popen(
            [sys.executable, TINY, *WORDS, f"OUT={folder}"], preexec_fn=listen, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ROOT},
        )  # fmt: skip
        wait_for(folder, epochs, process)
        if how == signal.SIGINT:
            before = content(folder)
            second = refused(*WORDS, f"OUT={folder}")
            changed = {p.name for p, x in content(folder).items() if before.get(p) != x}
        time.sleep(rng.random())  # an epoch takes longer
        process.send_signal(how)
        printed, errors = process.communicate(timeout=60)
    return folder, process.returncode, printed, errors, second, changed


def test_ctrl_c_ends_in_a_sentence_and_a_second_process_is_refused(interrupted):
    folder, code, printed, errors, message, changed = interrupted
    assert code == 3 and "Traceback" not in errors
    assert printed.splitlines()[-1] == f"stopped; the same command goes on from {folder}"
    assert not (folder / "results.json").exists()
    assert message == f"train: another process trains in {folder}: wait, or use OUT="
    assert not changed & {"run.json", "results.json", "model.keras"}  # the first writes the others


def test_an_interrupted_run_ends_with_the_same_weights(interrupted, whole, tmp_path):
    import resource  # Windows has none

    folder = shutil.copytree(interrupted[0], tmp_path / "run")
    size, limits = (folder / STATES[0]).stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limits[1]))  # as if the disk were full
    try:
        message = refused(*WORDS, f"OUT={folder}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "large" in message, message
    assert call(*WORDS, f"OUT={folder}") == 0
    assert all(map(np.array_equal, weights(folder), weights(whole)))
    epochs = [line.split(",")[0] for line in (folder / "log.csv").read_text().splitlines()[1:]]
    assert sorted(set(epochs)) == ["0", "1", "2", "3", "4"] and len(epochs) <= 8
    # Stopped again, after its last epoch and before its results: nothing is trained again.
    (folder / "results.json").unlink()
    (folder / "model.keras").unlink()
    assert call(*WORDS, f"OUT={folder}") == 0
    assert all(map(np.array_equal, weights(folder), weights(whole)))


def test_another_run_in_the_folder_is_left_alone(whole):
    before, out = content(whole), f"OUT={whole}"
    other = "holds a run with RATE=0.003, not 0.001: use that to go on"
    assert other in refused(*WORDS, "RATE=0.001", out)
    assert "holds a finished run: use OUT=another-folder" in refused(*WORDS, out)
    assert content(whole) == before


def test_a_damaged_backup_is_named(interrupted, tmp_path):
    folder = shutil.copytree(interrupted[0], tmp_path / "run")
    for state in STATES:
        (folder / state).write_bytes((folder / state).read_bytes()[:5_000])
    before = content(folder)
    assert refused(*WORDS, f"OUT={folder}") == (
        f"train: the backup in {folder}/backup is damaged: start anew with OUT=another-folder"
    )
    assert content(folder) == before


def test_a_power_cut_in_the_first_epoch_costs_that_epoch(tmp_path):
    state = tmp_path / Path(STATES[0]).name
    state.write_bytes(b"half a file")
    train.check_backup(tmp_path)  # the only state is torn, so the run begins anew
    assert not state.exists()


def test_what_it_does_not_know_is_named(tmp_path):
    for word, message in {
        "MODEL=rnn": " must be one of cnn, ctc",
        "BUDGET=20m": " must be minutes as in 20min, or pictures as in 300000",
        "BUDGET=0": " must be minutes",
        "RATE=2": " must be a number between 0 and 1, such as 0.003",
        "HARD=1.9,0": " must be two numbers between 0 and 1, such as 0.5,0.2",
        "START=none.keras": " is no file",
    }.items():
        assert f"{word}{message}" in refused("BUDGET=12", f"OUT={tmp_path / 'out'}", word)
    assert "STEPS is not an option; the options are MODEL, SIZE, BUDGET" in refused("STEPS=3")
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".json"]


def test_minutes_become_epochs():
    chosen = options.read(["BUDGET=11min"], "train", train.DEFAULTS, train.ALLOWED)
    assert train.plan(chosen, lambda: 0.1) == (30, 200)  # 660 s at 0.11 s a step
    assert train.plan(chosen | {"BUDGET": "640"}, None) == (1, 10)
    assert train.plan(chosen | {"BUDGET": "64000"}, None) == (5, 200)
