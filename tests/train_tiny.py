"""tools/train.py with tiny networks, few glyphs and short epochs; run by test_train*.py."""

import functools
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from captcha_reader import practice  # noqa: E402
from captcha_reader.bank import GlyphBank  # noqa: E402
from tools import train  # noqa: E402

NETWORK = {"filters": (4,), "convs": 1, "stride": 4, "norms": "once"}
TORCH = {"filters": (4, 8), "stride": 4, "tall": 0}


@functools.cache
def few_glyphs(seed: int, epoch: int, colors: int) -> GlyphBank:
    return GlyphBank(f"{seed}/{epoch}", colors=2, copies=1)


PATCHES = [
    (practice, "fresh_bank", few_glyphs),
    (train, "EPOCH", 12),
    (train, "VALID", 100),
    (train, "QUICK", 100),
]


def main() -> int:
    if "--model=pytorch" not in sys.argv:
        from notebooks_py import ch4_gpu_training as ch4

        ch4.SLIM = NETWORK
        return train.main()
    import torch

    from tools import train_torch

    class Run(train_torch.Run):
        def train(self, *steps):
            loss = super().train(*steps)
            torch.save(list(self.model.parameters()), here / "last.pt")
            return loss

    here = Path(os.environ["RANKS"], f"rank{train_torch.RANK}")  # each process has a folder
    here.mkdir(exist_ok=True)
    os.chdir(here)
    train_torch.SIZES["slim"], train_torch.Run = TORCH, Run
    return train.main()


if __name__ != "train_tiny":  # a process of its own, or one that draws for it
    for patch in PATCHES:
        setattr(*patch)
if __name__ == "__main__":
    train.runs.end_with(main)
