"""tools/train.py with tiny networks, few glyphs and short epochs; for several tests.

It is a module of the tests, and a program like `python -m tools.train`.
"""

import functools
import os
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from captcha_reader import practice  # noqa: E402
from captcha_reader.bank import GlyphBank  # noqa: E402
from tools import train  # noqa: E402

TORCH = {"filters": (4, 8), "stride": 4, "tall": 0}


@functools.cache
def few_glyphs(seed: int, number: int, colors: int) -> GlyphBank:
    return GlyphBank(f"{seed}/{number}", colors=2, copies=1)


def build(settings: dict):
    """Build a network whose first weights are the same on each backend."""
    import keras

    from tools.networks import NETWORKS

    model = NETWORKS[settings["model"]]["build"](filters=(4,), convs=1, stride=4, norms="once")
    rng, weights = np.random.default_rng(settings["seed"]), model.trainable_variables
    for weight in (weight for weight in weights if len(weight.shape) > 1):
        weight.assign(rng.normal(0, 0.1, weight.shape))
    value = weights[0].value
    in_jax = keras.backend.backend() == "jax"
    copies = value.devices() if in_jax else getattr(value, "values", [value])
    print(f"weights on {len(copies)} devices")
    return model


PATCHES = [
    (practice, "fresh_bank", few_glyphs),
    (practice, "NOTHING", ("blank", "stripes")),  # lower case has a large bank of its own
    (train, "build", build),
    (train, "EPOCH", 12),
    (train, "VALID", 100),
    (train, "QUICK", 100),
]


def run(out: Path, *words: str, patches=()) -> None:
    """Train in this process, and let no other one draw."""
    argv = ["train", "--workers=0", f"--out={out}", *words]
    with pytest.MonkeyPatch.context() as patch:
        for change in (*PATCHES, *patches, (sys, "argv", argv)):
            patch.setattr(*change)
        train.main()


if __name__ != "train_tiny":  # a process of its own, or one that draws for it
    for patch in PATCHES:
        setattr(*patch)
if __name__ == "__main__":
    if os.environ.get("KERAS_BACKEND") == "jax":
        sys.modules["tensorflow"] = None  # as on a machine without it: to import it is an error
    elif os.environ.get("DEVICES"):
        train.options.import_keras()
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        logical = [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
        tf.config.set_logical_device_configuration(cpu, logical)
    if rank := os.environ.get("RANK"):  # torchrun's; each process has a folder
        from tools import train_torch

        train_torch.SIZES["slim"] = TORCH
        (here := Path(os.environ["RANKS"], rank)).mkdir()
        os.chdir(here)
    train.options.end_with(train.main)
