"""Models, CTC loss, decoding and training give the same on TensorFlow and on JAX."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FACTS = Path(__file__).parent / "backend_facts.py"


def facts(backend: str) -> dict:
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run([sys.executable, FACTS], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="jax is not installed")
def test_jax_gives_what_tensorflow_gives():
    jax, tensorflow = facts("jax"), facts("tensorflow")
    assert (jax.pop("backend"), tensorflow.pop("backend")) == ("jax", "tensorflow")
    assert (jax.pop("imported"), tensorflow.pop("imported")) == (["jax"], ["tensorflow"])
    assert jax["parameters"] == [2_653_360, 3_157_317]
    for name in ("ctc_loss", "cnn_losses", "ctc_losses"):
        assert jax.pop(name) == pytest.approx(tensorflow.pop(name), rel=1e-4, abs=1e-4), name
    assert jax == tensorflow
