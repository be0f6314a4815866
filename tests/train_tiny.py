"""tools/train.py with tiny networks, few glyphs and short epochs; for test_train*.py."""

import functools
import os
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from captcha_reader import practice  # noqa: E402
from captcha_reader.bank import GlyphBank  # noqa: E402
from tools import train  # noqa: E402

TORCH = {"filters": (4, 8), "stride": 4, "tall": 0}


@functools.cache
def few_glyphs(seed: int, epoch: int, colors: int) -> GlyphBank:
    return GlyphBank(f"{seed}/{epoch}", colors=2, copies=1)


def build(settings: dict):
    from tools.networks import NETWORKS

    network = NETWORKS[settings["model"]]["build"]
    return network(filters=(4,), convs=1, stride=4, norms="once")


PATCHES = [
    (practice, "fresh_bank", few_glyphs),
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
        assert train.main() == 0


if __name__ != "train_tiny":  # a process of its own, or one that draws for it
    for patch in PATCHES:
        setattr(*patch)
    draw, pause = practice.Practice.__call__, float(os.environ.get("PAUSE", 0))
    # Somebody who wants to interrupt needs time.
    practice.Practice.__call__ = lambda self, number: time.sleep(pause) or draw(self, number)
if __name__ == "__main__":
    if rank := os.environ.get("RANK"):  # torchrun's; each process has a folder
        from tools import train_torch

        train_torch.SIZES["slim"] = TORCH
        (here := Path(os.environ["RANKS"], rank)).mkdir()
        os.chdir(here)
    train.runs.end_with(train.main)
