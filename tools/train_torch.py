"""Train the PyTorch network of lesson 7 on captchas of 192x64: `make train MODEL=pytorch`."""

import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from captcha_reader.drawing import draw_wide, stream
from captcha_reader.scores import evaluate
from captcha_reader.texts import WIDE_WIDTH, random_texts
from notebooks_py import ch7_ctc_pytorch as ch7
from notebooks_py.ch4_gpu_training import PracticeSequence

SIZES = {
    "slim": ch7.SLIM,
    "full": {"filters": (32, 64, 128, 256, 256), "convs": 2, "stride": 1, "tall": 1, "lstm": 128},
}


class Ink(Dataset):
    """Batches of a PracticeSequence as lesson 7 wants them: ink and labels."""

    def __init__(self, data: PracticeSequence):
        self.data = data

    def __getitem__(self, index):
        X, y = self.data[index]
        return torch.from_numpy(1 - X @ ch7.LUMA).unsqueeze(1), torch.from_numpy(y).long()


def from_keras(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a slim CTC network of lesson 4 as a state of `ch7.CTCNet(**SLIM)`.

    PyTorch wants kernels as (out, in, height, width) and a column as (channels, rows), and pads
    other sides where a convolution moves by two: the networks read nearly, not quite the same.
    """
    model, state = keras.models.load_model(path, compile=False), {}
    layers = [layer for layer in model.layers if layer.get_weights()]
    places = [i for i, part in enumerate(ch7.CTCNet(**ch7.SLIM).blocks) if list(part.parameters())]
    for place, layer in zip(places, layers[:-1], strict=True):
        first, *others = layer.get_weights()
        names = ["weight", "bias", "running_mean", "running_var"]
        kernel = first.transpose(3, 2, 0, 1) if first.ndim == 4 else first
        for name, value in zip(names, [kernel, *others], strict=False):
            state[f"blocks.{place}.{name}"] = torch.from_numpy(value.copy())
        if first.ndim == 1:
            state[f"blocks.{place}.running_var"] += layer.epsilon - 1e-5  # PyTorch adds 1e-5
            state[f"blocks.{place}.num_batches_tracked"] = torch.tensor(0)
    kernel, bias = layers[-1].get_weights()
    channels = len(layers[-2].get_weights()[0])
    rows = kernel.reshape(-1, channels, len(bias)).transpose(2, 1, 0)
    state["logits.weight"] = torch.from_numpy(rows.reshape(len(bias), -1).copy())
    state["logits.bias"] = torch.from_numpy(bias)
    return state


def load(path: Path, size: str) -> ch7.CTCNet:
    """Return a network with the weights of a file, PyTorch's or those of a Keras network."""
    model, ours = ch7.CTCNet(**SIZES[size]), path.suffix != ".keras"
    state = torch.load(path, map_location="cpu", weights_only=True) if ours else from_keras(path)
    model.load_state_dict(state)
    return model


class Run:
    """A training: the network, its average, and the state of the optimizer."""

    def __init__(self, chosen: dict[str, str], steps: int):
        torch.manual_seed(int(chosen["SEED"]))
        size, first = chosen["SIZE"], chosen["START"]
        model = load(Path(first), size) if first else ch7.CTCNet(**SIZES[size])
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.half = chosen["PRECISION"] == "mixed_bfloat16"
        self.model = model.to(self.device, memory_format=torch.channels_last)
        decay = get_ema_multi_avg_fn(min(0.998, 1 - 10 / max(20, steps)))
        self.average = AveragedModel(self.model, multi_avg_fn=decay, use_buffers=True)
        self.optimizer, self.cycle = ch7.adamw(self.model, steps, float(chosen["RATE"]))
        self.parts = {"model": self.model, "average": self.average,
                      "optimizer": self.optimizer, "cycle": self.cycle}  # fmt: skip

    def epoch(self, data: PracticeSequence) -> float:
        """Train for one epoch, while another process draws; return the mean loss."""
        loader = DataLoader(Ink(data), batch_size=None, sampler=range(data.steps), num_workers=1)
        losses = []
        # A cache would hold the weights of the first step as 16 bits, for the whole epoch.
        half = {"dtype": torch.bfloat16, "enabled": self.half, "cache_enabled": False}
        with torch.autocast(self.device, **half):
            for loss in ch7.train(self.model, loader, self.optimizer, self.cycle):
                self.average.update_parameters(self.model)
                losses.append(loss)
        return float(np.mean(losses))

    def save(self, path: Path, epoch: int) -> None:
        """Write all that is needed to go on; the old file stays until the new one is whole."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        torch.save({"epoch": epoch, **state}, draft := path.with_suffix(".new"))
        draft.replace(path)

    def resume(self, path: Path) -> int:
        """Go on from a file of `save`, if it is there; return the number of finished epochs."""
        if not path.exists():
            return 0
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return state["epoch"]


def train(chosen: dict[str, str], out: Path, open_run, valid: int) -> dict:
    """Train as the options say; write model.pt and return what the results file will say."""
    seed, batch = int(chosen["SEED"]), int(chosen["BATCH"])
    hard = tuple(float(share) for share in chosen["HARD"].split(","))

    def make_data(steps: int, epochs: int) -> PracticeSequence:
        more = {"labels": "ctc", "width": WIDE_WIDTH}
        return PracticeSequence(batch, steps, seed, epochs=epochs, hard=hard, **more)

    def seconds_a_step() -> float:
        run, data = Run(chosen, 1_000), make_data(12, 1)
        run.epoch(data)
        start = time.perf_counter()
        run.epoch(data)
        return (time.perf_counter() - start) / 12

    epochs, steps = open_run(seconds_a_step)
    rng = stream(seed, "valid", epoch=0, index=0)
    texts = random_texts(rng, valid)
    pictures, data = draw_wide(texts, rng), make_data(steps, epochs)
    labels = torch.from_numpy(ch7.encode(texts)).long() + 1
    run = Run(chosen, epochs * steps)
    done = run.resume(out / "state.pt")
    for epoch in tqdm(range(done, epochs), initial=done, total=epochs):
        data.epoch, start = epoch, time.perf_counter()
        loss = run.epoch(data)
        with torch.inference_mode():
            parts = ch7.to_ink(pictures).to(run.device).split(100)
            logits = torch.cat([run.average.eval()(part) for part in parts], 1).cpu()
        right = np.mean([a == b for a, b in zip(ch7.greedy(logits), texts, strict=True)])
        row = {"epoch": epoch, "loss": loss, "seconds": time.perf_counter() - start}
        row |= {"val_acc": right, "val_loss": ch7.ctc_loss(logits, labels).item()}
        log = out / "log.csv"
        pd.DataFrame([row]).to_csv(log, mode="a", header=not log.exists(), index=False)
        run.save(out / "state.pt", epoch + 1)
    finished = run.average.module.cpu().to(memory_format=torch.contiguous_format)
    torch.save(finished.state_dict(), out / "model.pt")
    score = evaluate(lambda pictures: ch7.read(finished, pictures), "wide-1k")
    print(score)
    parameters = sum(weights.numel() for weights in finished.parameters())
    seen = {"pictures": epochs * steps * batch, "parameters": parameters, "wide-1k": score.right}
    return {"model": "ctc_pytorch", **seen, "device": run.device.upper(), "backend": "torch"}
