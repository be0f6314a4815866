"""Training is the same on TensorFlow and JAX, on one device and on two."""

import functools
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FACTS = Path(__file__).parent / "backend_facts.py"


@functools.cache
def facts(backend: str) -> dict:
    if not importlib.util.find_spec(backend):
        pytest.skip(f"{backend} is not installed")
    environment = {**os.environ, "KERAS_BACKEND": backend}
    run = subprocess.run([sys.executable, FACTS], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_share_each_batch_and_train_as_one(backend):
    one, two = facts(backend)["one"], facts(backend)["two"]
    assert (one["devices"], two["devices"]) == (1, 2)
    # TensorFlow's devices each normalise their own half of a batch; JAX' the whole.
    tolerance = 0.01 if backend == "tensorflow" else 1e-4
    assert two["losses"] == pytest.approx(one["losses"], rel=tolerance)


def test_jax_gives_what_tensorflow_gives():
    ours, theirs = facts("jax")["one"], facts("tensorflow")["one"]
    assert ours["parameters"] == theirs["parameters"]
    assert ours["losses"][0] == pytest.approx(theirs["losses"][0], rel=1e-4)
    assert len(set(ours["losses"])) == 4  # each epoch did something
    assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-3)
