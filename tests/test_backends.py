"""Networks, CTC loss, decoding and training give the same on TensorFlow and on JAX."""

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
    assert (jax.pop("has_tensorflow"), tensorflow.pop("has_tensorflow")) == (False, True)
    assert jax.pop("ctc_loss") == pytest.approx(tensorflow.pop("ctc_loss"), rel=1e-4)
    for kind in ("cnn", "ctc"):
        parameters, (first, *later) = jax.pop(kind)
        count, (expected, *others) = tensorflow.pop(kind)
        assert parameters == count, kind
        assert first == pytest.approx(expected, rel=1e-4), kind
        # Adam divides by the size of a gradient, so a rounding error in a tiny one is a whole step.
        assert later == pytest.approx(others, rel=1e-2), kind
        assert len({first, *later}) == 4, kind  # each step did something
    assert jax == tensorflow
