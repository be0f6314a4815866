"""Train a tiny CTC network in two stages: FOLDER [resume]; run by test_ch7_ctc_pytorch.py."""

import sys
from pathlib import Path

import torch

from notebooks_py.ch7_ctc_pytorch import CaptchaBatches, CTCNet, make_loader, train

if __name__ == "__main__":
    folder, words = Path(sys.argv[1]), sys.argv[2:]
    torch.set_num_threads(1)
    torch.manual_seed(3)
    model = CTCNet((4, 4, 4, 4, 4), convs=1, hidden=8, layers=1)
    data = make_loader(CaptchaBatches(8, 20, seed=3), workers=2)
    valid = make_loader(CaptchaBatches(8, 1, seed=3, split="valid"))
    train(model, data, valid, folder, [(1e-3, 3), (1e-4, 2)], resume="resume" in words)
    torch.save(model.state_dict(), folder / "final.pt")
