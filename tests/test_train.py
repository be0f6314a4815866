"""make train: stopped, or shared, it comes to the same weights; what tools refuse."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import ModuleType
from unittest.mock import Mock

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import train_tiny
from conftest import ROOT

from captcha_reader.training import check_backup
from captcha_reader.weights import sha256
from tools import lessons, options, runs, train

WORDS = ["--budget=56", "--batch=4", "--seed=5", "--precision=float32"]  # 14 steps, 3 an epoch
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def log(folder: Path) -> pd.DataFrame:
    return runs.read_log(folder).drop(columns="seconds").set_index("epoch")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Return the folder of a run that nobody interrupted, of as many minutes as 14 steps take."""

    def count_steps(settings, seconds_a_step):
        assert settings["budget"] == "1min" and 0 < seconds_a_step() < 10
        return 14

    folder, patch = tmp_path_factory.mktemp("train") / "whole", (runs, "count_steps", count_steps)
    train_tiny.run(folder, *WORDS, "--budget=1min", patches=[patch])
    return folder


def test_a_run_writes_down_what_it_did(whole):
    run, results = (json.loads((whole / x).read_text()) for x in ("run.json", "results.json"))
    assert run.items() <= results.items()
    assert run["command"] == "make train MODEL=ctc BUDGET=1min SEED=5 BATCH=4 PRECISION=float32"
    assert (run["settings"]["batch"], run["steps"], results["pictures"]) == (4, 14, 56)
    assert run["versions"]["captcha"] == "0.7.0" and run["cores"] == os.cpu_count()
    model = keras.models.load_model(whole / "model.keras")
    assert results["parameters"] == model.count_params() and not model.compiled
    assert results["sha256"] == sha256(whole / "model.keras")
    assert log(whole).index.tolist() == list(range(5))  # the last one has two steps
    assert log(whole)[["val_acc", "val_sizes"]].stack().between(0, 1).all()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_a_run_that_was_killed_and_stopped_ends_with_the_same_weights_and_log(whole, tmp_path):
    """Also as the run whose steps were measured first: that leaves nothing behind."""
    folder = tmp_path / "run"
    draft, state = (folder / "backup" / f"{x}.weights.h5" for x in ("draft", "latest"))
    before = state.with_name(f"{state.name}.bkp")
    command = [sys.executable, train_tiny.__file__, *WORDS, f"--out={folder}"]
    # A shell starts what it runs in the background with SIGINT ignored, and children inherit that.
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    options = {"env": ENVIRONMENT, "preexec_fn": listen, "start_new_session": True, **pipes}
    # After the first epoch it is killed, and after the second stopped by Ctrl-C, which also reaches
    # the process that draws.
    for saved, end, how in ((state, os.kill, signal.SIGKILL), (before, os.killpg, signal.SIGINT)):
        process = subprocess.Popen(command, **options)
        while not saved.exists() or draft.exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        end(process.pid, how)
        printed, errors = process.communicate(timeout=60)
    assert process.returncode == 3 and "goes on" in printed and "Traceback" not in errors
    assert not (folder / "results.json").exists()
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])  # a power cut tore it
    subprocess.run(command, check=True, env=ENVIRONMENT)
    ours, theirs = (keras.models.load_model(x / "model.keras") for x in (folder, whole))
    assert all(map(np.array_equal, ours.get_weights(), theirs.get_weights()))
    pd.testing.assert_frame_equal(log(folder), log(whole))


@pytest.fixture(scope="module")
def one_device(tmp_path_factory) -> tuple[list[str], list[float]]:
    """Return the options of a run of three steps, one an epoch, and its held-out losses."""
    words = ["--batch=12", "--budget=36", "--precision=float32"]
    train_tiny.run(out := tmp_path_factory.mktemp("train") / "one", *words)
    return words, log(out).val_loss.tolist()


# TensorFlow's devices each normalise their own half of a batch; JAX' the whole.
@pytest.mark.parametrize(
    ("backend", "devices", "tolerance"),
    [("tensorflow", 2, 5e-4), ("jax", 3, 1e-4)],  # three can't share 100 held-out captchas evenly
)
def test_several_devices_train_as_one_of_tensorflow(
    one_device, tmp_path, backend, devices, tolerance
):
    if not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    words, expected = one_device
    flags = f"--xla_force_host_platform_device_count={devices}"
    several = {"DEVICES": str(devices), "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    environment = ENVIRONMENT | several | {"KERAS_BACKEND": backend}
    command = [sys.executable, train_tiny.__file__, *words, f"--out={tmp_path}", "--workers=0"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    assert f"weights on {devices} devices" in run.stdout
    assert expected[-1] < 0.995 * expected[0]  # what is learned is more than the tolerance
    assert log(tmp_path).val_loss.tolist() == pytest.approx(expected, rel=tolerance)


def test_half_precision_trains_and_the_network_reads_without_it(tmp_path):
    words = ["--model=cnn", "--batch=4", "--budget=4", "--precision=mixed_bfloat16"]
    train_tiny.run(tmp_path, *words)
    model = keras.models.load_model(tmp_path / "model.keras")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    trained = keras.models.load_model(tmp_path / "averaged.keras")
    assert {layer.compute_dtype for layer in trained.layers} >= {"bfloat16"}
    assert all(map(np.array_equal, model.get_weights(), trained.get_weights()))


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
@pytest.mark.parametrize(
    ("flags", "gpu", "half"),
    [("fpu avx512f", None, False), ("fpu avx512_bf16", None, True), ("fpu", (8, 0), True),
     ("fpu amx_bf16", (7, 5), False)],  # a T4 emulates it
)  # fmt: skip
def test_half_precision_is_for_devices_that_compute_in_it(monkeypatch, backend, flags, gpu, half):
    if backend == "torch":
        torch = pytest.importorskip("torch", reason="make setup-torch")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(gpu))
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: gpu)
    details = {"compute_capability": gpu}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: [gpu] if gpu else [])
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda _: details)
    monkeypatch.setattr(runs, "cpuinfo", lambda: flags)
    assert runs.best_precision(backend) == ("mixed_bfloat16" if half else "float32")


def test_only_the_same_run_goes_on_in_a_folder(tmp_path, monkeypatch):
    out, module = tmp_path / "run", ModuleType("tools.x")
    module.__file__ = str(tmp_path / "tools" / "x.py")
    monkeypatch.setitem(sys.modules, "tools.x", module)
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    settings = train.read_options([])[0]
    go_on = partial(runs.open_run, out, command="make train", seconds_a_step=None)
    runs.write(Path(module.__file__), "a = 1\n")
    first = go_on(settings)
    runs.write(Path(module.__file__), "# why\na = 1\n")
    assert go_on(settings) == first
    with pytest.raises(ValueError, match=r"RATE=0.02, not 0.001.*OUT="):
        go_on(settings | {"rate": 0.001})
    runs.write(Path(module.__file__), "a = 2\n")
    with pytest.raises(ValueError, match="other code.*OUT="):
        go_on(settings)
    (out / "results.json").write_text("{}")
    with pytest.raises(ValueError, match="finished run.*OUT="):
        go_on(settings)
    assert json.loads((out / "run.json").read_text()) == first


def test_without_out_the_same_command_comes_to_the_same_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train, "train_keras", Mock(side_effect=InterruptedError))
    for words, folders in ([], 1), ([], 1), (["--hard=0"], 2), (["--seed=1"], 3):
        monkeypatch.setattr(sys, "argv", ["train", "--precision=float32", *words])
        with pytest.raises(InterruptedError):
            train.main()
        assert len([*Path("build/train").iterdir()]) == folders


def test_a_record_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    runs.write_json(path := tmp_path / "run.json", {"steps": 1})
    monkeypatch.setattr(Path, "replace", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        runs.write_json(path, {"steps": 2})
    assert json.loads(path.read_text()) == {"steps": 1}


def test_a_folder_is_for_one_process_and_what_is_not_a_run_is_left_alone(tmp_path):
    run, file = tmp_path / "run", tmp_path / "log.csv"
    with runs.locked(run), pytest.raises(ValueError, match="run: wait"), runs.locked(run):
        pass
    file.write_text("mine\n")
    for out in (tmp_path, file):
        with pytest.raises(ValueError, match=f"{out.name} .*OUT="), runs.locked(out):
            pass
    assert {path.name for path in tmp_path.iterdir()} == {"run", "log.csv"}
    assert file.read_text() == "mine\n"


def test_the_command_that_is_written_down_leads_to_the_settings(monkeypatch):
    for word in ("--model=ctc", "--model=cnn", "--size=full", "--budget=20min", "--seed=1",
                 "--sizes=0.1", "--hard=0", "--bank=500", "--batch=32", "--rate=0.01"):  # fmt: skip
        settings, *_ = train.read_options([word])
        first, name, *typed = train.command(settings).split()
        assert (first, name) == ("make", "train")
        assert train.read_options(["--" + word.lower() for word in typed])[0] == settings
    monkeypatch.setenv("WORLD_SIZE", "3")
    settings, *_ = train.read_options(words := ["--model=pytorch", "--batch=63"])
    typed = f"torchrun --nproc-per-node 3 -m tools.train {' '.join(words)}"
    assert train.command(settings) == typed


def test_a_damaged_backup_is_named_and_one_of_the_first_epoch_is_dropped(tmp_path):
    (tmp_path / "latest.weights.h5").write_bytes(b"half a file")
    check_backup(tmp_path)
    assert not list(tmp_path.iterdir())
    for name in ("latest.weights.h5", "latest.weights.h5.bkp"):
        (tmp_path / name).write_bytes(b"half a file")
    with pytest.raises(ValueError, match=f"{tmp_path.name} is damaged.*OUT="):
        check_backup(tmp_path)


@pytest.mark.parametrize(
    "words",
    ["train --model=rnn", "train --budget=20m", "train --budget=0", "train --budget=0min",
     "train --budget=63", "train --batch=64001", "train --seed=4294967296", "train --rate=2",
     "train --workers=-1", "train --model=cnn --sizes=0.5", "train --steps=3",
     "train --model=cnn",
     "train --model=pytorch --batch=63", "train --model=pytorch --budget=20min",
     "tune --folder=x --from=mine.keras", "tune --folder=x --budget=10",
     "study --what=lengths", "study --what=bank --pictures=9", "study --what=bank --out=..",
     "evaluate --model=rnn", "evaluate --set=classic", "evaluate --model=none.keras",
     "run_lessons --steps=0", "run_lessons --seed=-1"],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_written(words, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")  # two processes share a batch evenly, and count captchas
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", words.split())
    with pytest.raises(SystemExit):
        importlib.import_module(f"tools.{words.split()[0]}").main()
    name, value = words.split()[-1].split("=")
    message = capsys.readouterr().err.splitlines()[-1]
    assert name in message and value in message and not [*tmp_path.iterdir()]


def test_options_are_read_and_captchas_drawn_without_keras():
    code = "import sys; from tools import evaluate, publish, study, train, tune; "
    code += "sys.exit('keras' in sys.modules or 'tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=ENVIRONMENT)


@pytest.mark.parametrize(
    ("error", "code", "last"),
    [(ValueError("no folder x"), 1, "train: no folder x"), (KeyboardInterrupt(), 3, ""),
     (ModuleNotFoundError("no torch", name="torch"), 1,
      "train: no torch; `make setup-torch` adds it"),
     (SystemExit(2), 2, ""), (ZeroDivisionError("a bug"), 1, "ZeroDivisionError: a bug")],
)  # fmt: skip
def test_what_a_user_can_mend_is_said_in_one_line(monkeypatch, capsys, error, code, last):
    codes = []
    monkeypatch.setattr("sys.argv", ["tools/train.py"])
    monkeypatch.setattr(os, "_exit", codes.append)
    options.end_with(Mock(side_effect=error))
    lines = capsys.readouterr().err.splitlines()
    assert codes == [code] and lines[-1:] == [last] * bool(last)
    assert any("Traceback" in line for line in lines) == (type(error) is ZeroDivisionError)


def test_a_budget_is_meant_to_a_step(monkeypatch):
    settings, *_ = train.read_options([])
    # Minutes are those of the whole command, of which 50 seconds have passed.
    monkeypatch.setattr(runs, "BEGAN", 0.0)
    monkeypatch.setattr(runs, "time", Mock(perf_counter=lambda: 50.0))
    budgets = [settings | {"budget": budget} for budget in (19_136, "11min", "1min")]
    steps = [runs.count_steps(x, lambda: 0.1 / 1.05) for x in budgets]
    assert steps == pytest.approx([299, 5_950, 1], rel=1e-3)


@pytest.mark.skipif(os.name == "nt", reason="there is no make on Windows")
def test_make_clean_keeps_trainings(tmp_path):
    kept = {"build/train/ctc/log.csv", "build/study/abc/log.csv", "mine.txt"}
    for name in (*kept, "build/site/index.html", "build/log", ".pytest_cache/x", "x.egg-info/y"):
        lessons.write(tmp_path / name, "")
    command = ["make", "-f", ROOT / "Makefile", "clean"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    files = {x.relative_to(tmp_path).as_posix() for x in tmp_path.rglob("*") if x.is_file()}
    assert files == kept
