"""make train MODEL=pytorch: it goes on where it was stopped; and processes that share a batch."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch", reason="lesson 7 needs PyTorch: make setup-torch")

import train_tiny  # noqa: E402
from conftest import ROOT  # noqa: E402

from notebooks_py import ch7_ctc_pytorch as ch7  # noqa: E402
from tools import train, train_torch  # noqa: E402

torch.set_num_threads(1)  # the networks here are tiny
WORDS = ["--model=pytorch", "--batch=4", "--seed=5", "--precision=float32"]
SETTINGS, *_ = train.read_options(WORDS)
TINY = (train_torch, "SIZES", {"slim": train_tiny.TORCH})


def tiny(out, *words: str) -> tuple[dict[str, torch.Tensor], pd.DataFrame]:
    """Train seven long steps, three an epoch; return the averaged weights and the log."""
    train_tiny.run(out, *WORDS, "--budget=28", "--rate=0.1", *words, patches=[TINY])
    log = pd.read_csv(out / "log.csv").drop(columns="seconds")
    return torch.load(out / "model.pt", weights_only=True), log


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("whole"))


def test_a_stopped_run_goes_on_to_the_same_bits(whole, tmp_path, monkeypatch):
    train_epoch, calls = train_torch.Run.train, []

    def stop(self, draw, first, last):
        calls.append((first, last))
        loss = train_epoch(self, draw, first, first + 1 if len(calls) == 2 else last)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return loss

    monkeypatch.setattr(train_torch.Run, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        tiny(tmp_path)
    resumed, log = tiny(tmp_path)
    assert calls == [(0, 3), (3, 6), (3, 6), (6, 7)]
    assert all(torch.equal(weights, resumed[name]) for name, weights in whole[0].items())
    pd.testing.assert_frame_equal(log, whole[1])


def test_half_precision_learns_from_step_to_step_and_keeps_whole_weights(whole, tmp_path):
    """The rounded weights are new in each step, not those with which the epoch began."""
    half, log = tiny(tmp_path, "--precision=mixed_bfloat16")
    assert {x.dtype for x in half.values()} == {x.dtype for x in whole[0].values()}
    assert np.allclose(log.loss, whole[1].loss, rtol=0.03) and not log.loss.equals(whole[1].loss)


def test_two_processes_train_as_one_that_averages_the_gradients_of_the_halves(
    tmp_path, monkeypatch
):
    """Each in a folder of its own, as on two machines."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
               train_tiny.__file__, *WORDS, "--budget=16", "--out=run"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RANKS": str(tmp_path)}
    subprocess.run(command, env=environment, check=True)  # four steps, three an epoch
    folder = tmp_path / "0" / "run"
    assert (folder / "results.json").exists() and not list((tmp_path / "1").iterdir())
    for change in train_tiny.PATCHES:
        monkeypatch.setattr(*change)
    torch.manual_seed(5)
    model = ch7.CTCNet(**train_tiny.TORCH)
    half = dataclasses.replace(train.practice(SETTINGS), batch=2)
    optimizers, cycles = ch7.recipe(model, 4, SETTINGS["rate"])
    for step in range(4):
        model.zero_grad()
        for number in (2 * step, 2 * step + 1):
            ink, labels = train_torch.as_tensors(*half(number))
            (ch7.ctc_loss(model(ink), labels) / 2).backward()
        for part in (*optimizers, *cycles):
            part.step()
    trained = torch.load(folder / "state.pt", map_location="cpu")["parts"][0]
    # A bias in front of a norm does nothing, and its gradient is a rounding error.
    idle = {id(part.bias) for part in model.blocks if isinstance(part, torch.nn.Conv2d)}
    for name, expected in model.named_parameters():
        assert id(expected) in idle or torch.allclose(expected, trained[name], atol=1e-5), name
    with pytest.raises(ValueError, match="PROCESSES=2, not 1"):  # other captchas, another run
        train_tiny.run(folder, *WORDS, "--budget=16", patches=[TINY])


def test_a_process_on_another_machine_goes_on_from_what_the_first_one_has(tmp_path, monkeypatch):
    monkeypatch.setattr(*TINY)
    first, other = (train_torch.Run(SETTINGS | {"seed": seed}, 10) for seed in (5, 6))
    first.save(tmp_path / "state.pt", 2)
    monkeypatch.setattr(train_torch, "from_first", lambda _: torch.load(tmp_path / "state.pt"))
    assert other.resume(tmp_path / "none.pt") == 2
    expected, state = first.average.state_dict(), other.average.state_dict()
    assert all(torch.equal(expected[name], value) for name, value in state.items())
