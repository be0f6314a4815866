"""Train the PyTorch network of lesson 7 on captchas of 192x64: `make train MODEL=pytorch`.

On several processes, and machines: `torchrun --nproc-per-node 2 -m tools.train --model=pytorch`.
Each process draws its own part of every batch, PyTorch's `DistributedDataParallel` averages their
gradients, and the first process writes.
"""

import contextlib
import dataclasses
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from captcha_reader.practice import Ahead
from captcha_reader.texts import encode
from notebooks_py import ch7_ctc_pytorch as ch7
from tools import runs
from tools.train import held_out, practice

SIZES = {
    "slim": ch7.SLIM,
    "full": {"filters": (32, 64, 128, 256, 256), "convs": 2, "stride": 1, "tall": 1,
             "norms": "every", "lstm": 128},
}  # fmt: skip
RANK = int(os.environ.get("RANK", 0))  # of this process; torchrun sets both
WORLD = int(os.environ.get("WORLD_SIZE", 1))  # how many processes there are


class Run:
    """A training: the network, its average, and the state of the optimizers."""

    def __init__(self, settings: dict, steps: int):
        torch.manual_seed(settings["seed"])
        model = ch7.CTCNet(**SIZES[settings["size"]])
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.half = settings["precision"] == "mixed_bfloat16"
        self.model = model.to(self.device, memory_format=torch.channels_last)
        decay = get_ema_multi_avg_fn(min(0.998, 1 - 10 / max(20, steps)))
        self.average = AveragedModel(self.model, multi_avg_fn=decay, use_buffers=True)
        self.optimizers, self.cycles = ch7.recipe(self.model, steps, settings["rate"])
        self.parts = [self.model, self.average, *self.optimizers, *self.cycles]
        self.shared = DistributedDataParallel(self.model) if WORLD > 1 else self.model

    def train(self, draw, first: int, last: int) -> float:
        """Take the steps `first` to `last` - 1; return the mean loss."""
        losses, numbers = [], range(first * WORLD + RANK, last * WORLD + RANK, WORLD)
        # A cache would hold the weights of the first step as 16 bits, for all steps.
        half = {"dtype": torch.bfloat16, "enabled": self.half, "cache_enabled": False}
        with torch.autocast(self.device, **half):
            batches = (as_tensors(*draw(number)) for number in numbers)
            for loss in ch7.train(self.shared, batches, self.optimizers, self.cycles):
                self.average.update_parameters(self.model)
                losses.append(loss)
        return float(np.mean(losses))

    @torch.inference_mode()
    def validate(self, valid: list[tuple]) -> dict:
        """Read held-out captchas with the averaged weights; return val_loss and val_acc."""
        losses, right, network = [], [], self.average.eval()
        for pictures, _, texts in valid:
            ink, labels = as_tensors(pictures, texts)
            logits = network(ink.to(self.device)).cpu()
            losses.append(ch7.ctc_loss(logits, labels).item())
            right += [a == b for a, b in zip(ch7.greedy(logits), texts, strict=True)]
        return {"val_loss": np.mean(losses), "val_acc": np.mean(right)}

    def save(self, path: Path, steps: int) -> None:
        """Write all that is needed to go on; the old file stays until the new one is whole."""
        state = {"steps": steps, "parts": [part.state_dict() for part in self.parts]}
        torch.save(state, draft := path.with_suffix(".new"))
        draft.replace(path)

    def resume(self, path: Path) -> int:
        """Go on from the first process' file, if it has one; return how many steps are made."""
        state = from_first(lambda: torch.load(path, map_location="cpu") if path.exists() else None)
        if not state:
            return 0
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)
        return state["steps"]


def as_tensors(pictures: np.ndarray, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return uint8 pictures and texts of four characters as ink and labels."""
    labels = torch.from_numpy(encode(texts)).long() + 1
    return ch7.to_ink(pictures), labels


def from_first(action):
    """Return what `action()` returns in the first process, in all of them."""
    result = [action() if RANK == 0 else None]
    if WORLD > 1:
        distributed.broadcast_object_list(result)
    return result[0]


def train(settings: dict, out: Path, workers: int, typed: str) -> dict:
    """Train as the settings say; write model.pt and return the record of the run."""
    job = practice(settings)
    part = dataclasses.replace(job, batch=job.batch // WORLD)  # batch k is number k * WORLD + RANK
    if WORLD > 1:  # join the others that torchrun started
        if on_gpu := torch.cuda.is_available():  # each one talks through its own
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("nccl" if on_gpu else "gloo")
    with Ahead(part, workers, stride=WORLD) if workers else contextlib.nullcontext(part) as draw:

        def seconds_a_step() -> float:  # with a network that is thrown away
            run = Run(settings, 1_000)
            run.train(draw, 0, 10)
            start = time.perf_counter()
            run.train(draw, 10, 30)
            return (time.perf_counter() - start) / 20

        record = from_first(lambda: runs.open_run(out, settings, typed, seconds_a_step))
        steps, valid = record["steps"], held_out(settings)["classic"] if RANK == 0 else []
        run = Run(settings, steps)
        done = run.resume(out / "state.pt")
        with tqdm(initial=done, total=steps, unit="batch", disable=RANK > 0 or None) as progress:
            for first in range(done, steps, job.steps):
                start, end = time.perf_counter(), min(first + job.steps, steps)
                loss = run.train(draw, first, end)
                progress.update(end - first)
                if RANK == 0:
                    row = {"epoch": first // job.steps, "loss": loss, **run.validate(valid)}
                    row["seconds"] = time.perf_counter() - start
                    progress.set_postfix(val_acc=row["val_acc"])
                    log = out / "log.csv"
                    pd.DataFrame([row]).to_csv(log, mode="a", header=not log.exists(), index=False)
                    run.save(out / "state.pt", end)
        finished = run.average.module.cpu().to(memory_format=torch.contiguous_format)
        if RANK == 0:
            torch.save(finished.state_dict(), out / "model.pt")
    if WORLD > 1:
        distributed.destroy_process_group()
    parameters = sum(weights.numel() for weights in finished.parameters())
    return record | {"device": run.device.upper(), "parameters": parameters}
