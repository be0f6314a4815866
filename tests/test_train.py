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
from types import ModuleType, SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import train_tiny
from conftest import ROOT

from captcha_reader.training import check_backup
from captcha_reader.weights import sha256
from notebooks_py import ch4_gpu_training as ch4
from tools import runs, train

WORDS = ["MODEL=ctc", "BUDGET=56", "BATCH=4", "SEED=5", "PRECISION=float32"]  # 14 steps, 3 an epoch
STATES = ("backup/latest.weights.h5", "backup/latest.weights.h5.bkp")


def call(*words: str, code: str = "this version") -> int:
    """Run tools/train.py here, with a tiny network and without another process."""
    with pytest.MonkeyPatch.context() as patch:
        for place, name, value in train_tiny.PATCHES:
            patch.setattr(place, name, value)
        patch.setattr(ch4, "SLIM", train_tiny.NETWORK)
        patch.setattr(runs, "code_hash", lambda: code)
        patch.setattr("sys.argv", ["train", "WORKERS=0", *words])
        return train.main()


def refused(*words: str, **more: str) -> str:
    """Return the one line with which the call ends; its exit code is 1 then."""
    with pytest.raises(SystemExit) as error:
        call(*words, **more)
    assert isinstance(error.value.code, str) and "\n" not in error.value.code
    assert error.value.code.startswith("train: ") and len(error.value.code) < 300
    return error.value.code


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weights(folder: Path) -> list[np.ndarray]:
    return keras.models.load_model(folder / "model.keras").get_weights()


def log(folder: Path) -> pd.DataFrame:
    rows = pd.read_csv(folder / "log.csv").drop_duplicates("epoch", keep="last")
    return rows.drop(columns="seconds").reset_index(drop=True)


def record(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("train") / "whole"
    assert call(*WORDS, f"OUT={folder}") == 0
    return folder


def test_a_run_writes_down_what_it_did(whole):
    run, results = record(whole, "run.json"), record(whole, "results.json")
    assert run.items() <= results.items() and run["command"].endswith(
        f"SEED=5 {WORDS[4]} OUT={whole}"
    )
    assert (run["settings"]["BATCH"], run["steps"], results["pictures"]) == ("4", 14, 56)
    assert run["versions"]["captcha"] == "0.7.0" and run["cores"] == os.cpu_count()
    model = keras.models.load_model(whole / "model.keras")
    assert results["parameters"] == model.count_params() and not model.compiled
    assert results["sha256"] == sha256(whole / "model.keras")
    assert log(whole).epoch.tolist() == [0, 1, 2, 3, 4]  # the last one has two steps
    assert log(whole)[["val_acc", "val_sizes"]].stack().between(0, 1).all()


def test_half_precision_trains_and_the_network_reads_without_it(tmp_path):
    words = ["MODEL=cnn", "BUDGET=4", "BATCH=4", "PRECISION=mixed_bfloat16"]
    assert call(*words, f"OUT={tmp_path}") == 0
    model = keras.models.load_model(tmp_path / "model.keras")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    trained = keras.models.load_model(tmp_path / "averaged.keras")
    assert {layer.compute_dtype for layer in trained.layers} >= {"bfloat16"}
    assert all(map(np.array_equal, model.get_weights(), trained.get_weights()))


@pytest.mark.parametrize("in_torch", [False, True])
def test_half_precision_is_for_devices_that_compute_in_it(tmp_path, monkeypatch, in_torch):
    torch = in_torch and pytest.importorskip("torch", reason="make setup-torch")
    monkeypatch.setattr(runs, "Path", {"/proc/cpuinfo": tmp_path / "cpuinfo"}.get)
    for flags, gpu, precision in (
        (None, None, "float32"),  # no such file
        ("fpu avx512f", None, "float32"),
        ("fpu avx512_bf16", None, "mixed_bfloat16"),
        ("fpu amx_bf16", (7, 5), "float32"),  # a T4 emulates it
        ("fpu", (8, 0), "mixed_bfloat16"),
    ):
        if flags:
            (tmp_path / "cpuinfo").write_text(flags)
        if in_torch:
            monkeypatch.setattr(torch.cuda, "is_available", lambda gpu=gpu: bool(gpu))
            monkeypatch.setattr(torch.cuda, "get_device_capability", lambda gpu=gpu: gpu)
        gpus, details = [gpu] if gpu else [], {"compute_capability": gpu}
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda _, x=gpus: x)
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda _, x=details: x)
        assert runs.best_precision(in_torch) == precision


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that was killed, went on, and was stopped with Ctrl-C: its folder, what it said."""
    if os.name == "nt":
        pytest.skip("Windows has no such signals")
    folder, rng = tmp_path_factory.mktemp("train") / "stopped", random.Random(1)
    # A shell starts what it runs in the background with SIGINT ignored, and children inherit that.
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    for epochs, how in [(1, signal.SIGKILL), (3, signal.SIGINT)]:
        process = subprocess.Popen(
            [sys.executable, train_tiny.__file__, *WORDS, f"OUT={folder}"], preexec_fn=listen,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "SECONDS": "0.25"},
        )  # fmt: skip
        table, end = folder / "log.csv", time.monotonic() + 300
        while not table.exists() or table.read_text().count("\n") <= epochs:
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                pytest.fail(f"epoch {epochs} did not come: {process.communicate()}")
            time.sleep(0.02)
        if how == signal.SIGINT:
            before = content(folder)
            second = refused(*WORDS, f"OUT={folder}")
            changed = {p.name for p, x in content(folder).items() if before.get(p) != x}
        time.sleep(rng.random() / 2)  # an epoch takes longer
        # Ctrl-C reaches the process that draws, too; a kill does not.
        (os.kill if how == signal.SIGKILL else os.killpg)(process.pid, how)
        printed, errors = process.communicate(timeout=60)
    return SimpleNamespace(
        folder=folder, code=process.returncode, printed=printed, errors=errors, second=second,
        changed=changed,
    )  # fmt: skip


def test_ctrl_c_ends_in_a_sentence_and_a_second_process_is_refused(stopped):
    assert stopped.code == 3 and "Traceback" not in stopped.errors, stopped.errors
    assert "goes on" in stopped.printed.splitlines()[-1]
    assert (stopped.folder / "run.json").exists() and not (stopped.folder / "results.json").exists()
    assert str(stopped.folder) in stopped.second and "wait" in stopped.second
    assert not stopped.changed & {
        "run.json",
        "results.json",
        "model.keras",
    }  # the first's are others


def test_an_interrupted_run_ends_with_the_same_weights_and_log(stopped, tmp_path):
    folder, whole = shutil.copytree(stopped.folder, tmp_path / "run"), tmp_path / "whole"
    for out in (folder, whole):  # as other tests in this process may change how TensorFlow computes
        command = [sys.executable, train_tiny.__file__, *WORDS, f"OUT={out}"]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert all(map(np.array_equal, weights(folder), weights(whole)))
    pd.testing.assert_frame_equal(log(folder), log(whole))
    # Stopped again, after its last epoch and before its results: nothing is trained again.
    (folder / "results.json").unlink()
    (folder / "model.keras").unlink()
    rows = (folder / "log.csv").read_text()
    assert call(*WORDS, f"OUT={folder}", code=record(folder, "run.json")["code"]) == 0
    assert all(map(np.array_equal, weights(folder), weights(whole)))
    assert (folder / "log.csv").read_text() == rows


def test_only_the_same_run_goes_on_in_a_folder(stopped, whole, monkeypatch):
    monkeypatch.setattr(train, "held_out", None)  # it is refused before anything is drawn
    for folder, words, more, told in (
        (whole, [], {}, ["finished"]),
        (whole, ["RATE=0.001"], {}, ["0.001", "0.02"]),
        (stopped.folder, [], {"code": "another version"}, ["code"]),
    ):
        before = content(folder)
        message = refused(*WORDS, *words, f"OUT={folder}", **more)
        assert all(word in message for word in (*told, str(folder), "OUT=")), message
        assert content(folder) == before


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "log.csv").write_text("mine\n")
    (tmp_path / "model.keras").write_bytes(b"mine")
    before = content(tmp_path)
    for out in (tmp_path, tmp_path / "log.csv"):
        message = refused(*WORDS, f"OUT={out}")
        assert str(out) in message and "OUT=" in message
    assert content(tmp_path) == before and list(tmp_path.iterdir()) == list(map(Path, before))


def test_the_usual_folder_is_named_by_the_settings():
    def name(**changes: str) -> str:
        chosen = train.settle(train.DEFAULTS | changes)
        return str(train.folder(chosen | {"PRECISION": changes.get("PRECISION", "float32")}))

    others = {
        "MODEL": "cnn", "SIZE": "full", "BUDGET": "20min", "SEED": "1", "SIZES": "0.1",
        "HARD": "0", "BATCH": "32", "RATE": "0.01", "PRECISION": "mixed_bfloat16",
    }  # fmt: skip
    assert others.keys() == train.DEFAULTS.keys() - {"OUT", "WORKERS"}
    names = [name(), *(name(**{key: value}) for key, value in others.items())]
    assert len(set(names)) == len(names)
    assert name(SIZES="0.5", BUDGET=train.BUDGETS["ctc"]) == name()  # the same run, spelled out


def test_the_hash_of_the_code_changes_with_code_alone(tmp_path, monkeypatch):
    for folder in ("tools", "elsewhere"):
        (tmp_path / folder).mkdir()
        module = ModuleType(folder)
        module.__file__ = str(tmp_path / folder / "x.py")
        monkeypatch.setitem(sys.modules, f"imported from {folder}", module)
    monkeypatch.setattr(runs, "ROOT", tmp_path)
    hashes = []
    for code, other in (("a = 1\n", ""), ("# why\na = 1\n", "b = 1"), ("a = 2\n", "")):
        (tmp_path / "tools" / "x.py").write_text(code)
        (tmp_path / "elsewhere" / "x.py").write_text(other)
        hashes.append(runs.code_hash())
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_damaged_backup_is_named(stopped, tmp_path):
    folder = shutil.copytree(stopped.folder, tmp_path / "run")
    for state in STATES:
        (folder / state).write_bytes((folder / state).read_bytes()[:5_000])
    before = content(folder)
    message = refused(*WORDS, f"OUT={folder}", code=record(folder, "run.json")["code"])
    assert str(folder / "backup") in message and "OUT=" in message
    assert content(folder) == before


def test_a_power_cut_in_the_first_epoch_costs_that_epoch(tmp_path):
    state = tmp_path / Path(STATES[0]).name
    state.write_bytes(b"half a file")
    check_backup(tmp_path)  # the only state is torn, so the run begins anew
    assert not state.exists()


@pytest.mark.parametrize(
    "word",
    ["MODEL=rnn", "BUDGET=20m", "BUDGET=0", "BUDGET=0min", "BUDGET=3", "SEED=4294967296", "SEED=-1",
     "BATCH=0", "BATCH=13", "RATE=2", "HARD=1.9", "SIZES=2", "WORKERS=-1", "STEPS=3"],
)  # fmt: skip
def test_what_cannot_be_is_refused_at_once(tmp_path, monkeypatch, word):
    monkeypatch.setattr(runs, "locked", None)  # it does not get so far
    name, _, value = word.partition("=")
    message = refused("BUDGET=12", "BATCH=4", f"OUT={tmp_path / 'out'}", word)
    assert name in message and (name not in train.DEFAULTS or value in message)
    assert not (tmp_path / "out").exists()


def test_processes_that_draw_import_no_keras():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tools")])}
    code = "import sys, train; sys.exit('keras' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_a_budget_is_meant_to_a_step():
    chosen = train.settle(train.DEFAULTS | {"BUDGET": "19136", "BATCH": "64"})
    assert train.plan(chosen, 0, None) == {"steps": 299}
    assert train.practice(chosen).steps * 64 == train.EPOCH == 64_000
    chosen["BUDGET"] = "11min"  # of the whole command, of which half a minute is over
    began = time.perf_counter() - 30
    assert train.plan(chosen, began, lambda: 0.1)["steps"] == pytest.approx(6_200, abs=2)
    assert train.plan(chosen, began - 3_600, lambda: 0.1) == {"steps": 1}


def test_what_minutes_are_measured_with_leaves_nothing_behind(tmp_path, monkeypatch):
    plan, speeds = train.plan, []

    def two_steps(settings, began, seconds_a_step):
        speeds.append(seconds_a_step())
        return plan(settings | {"BUDGET": "8"}, began, None)

    assert call(*WORDS, "BUDGET=8", f"OUT={tmp_path / 'captchas'}") == 0
    monkeypatch.setattr(train, "plan", two_steps)
    assert call(*WORDS, "BUDGET=1min", f"OUT={tmp_path / 'minutes'}") == 0
    assert all(map(np.array_equal, *(weights(tmp_path / x) for x in ("captchas", "minutes"))))
    assert 0 < speeds[0] < 10


def test_make_clean_keeps_trainings(tmp_path):
    if os.name == "nt":
        pytest.skip("there is no make on Windows")
    shutil.copy(ROOT / "Makefile", tmp_path)
    kept = {"build/train/ctc/log.csv", "build/study/abc/log.csv", "mine.txt"}
    for name in (*kept, "build/site/index.html", "build/log", ".pytest_cache/x", "x.egg-info/y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    for _ in range(2):
        subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    found = {path.relative_to(tmp_path).as_posix() for path in content(tmp_path)}
    assert found == kept | {"Makefile"}
    shutil.rmtree(tmp_path / "build")
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
