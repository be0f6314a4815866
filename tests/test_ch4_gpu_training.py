"""Lesson 4: which device, whose memory, how fast."""

import keras
import pytest

from notebooks_py import ch4_gpu_training as ch4
from notebooks_py.ch1_captcha_preview import CaptchaSequence


@pytest.mark.parametrize(
    ("gpus", "words"),
    [([], "CPU"), (["gpu:0"], "GPU (gpu:0)"), (["gpu:0", "gpu:1"], "GPU (gpu:0, one of 2)")],
)
def test_the_device_is_named(monkeypatch, gpus, words):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind: gpus)
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


def test_feeding_speed_is_pictures_a_second_of_the_second_epoch(monkeypatch):
    clock = iter([0.0, 100.0, 102.0])  # two starts, one end
    monkeypatch.setattr(ch4.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(keras.Model, "fit", lambda *args, **kwargs: None)
    assert ch4.feeding_speed(CaptchaSequence(4, 3, 1)) == pytest.approx(4 * 3 / 2)
