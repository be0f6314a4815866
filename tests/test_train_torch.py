"""make train MODEL=pytorch: it goes on where it was stopped, and can start from a Keras network."""

import functools

import numpy as np
import options
import pandas as pd
import pytest

torch = pytest.importorskip("torch", reason="lesson 7 needs PyTorch: make setup-torch")

import evaluate  # noqa: E402
import train  # noqa: E402
import train_torch  # noqa: E402

from captcha_reader import scores, testsets  # noqa: E402
from captcha_reader.bank import GlyphBank  # noqa: E402
from captcha_reader.drawing import draw_captchas, stream  # noqa: E402
from captcha_reader.texts import random_texts  # noqa: E402
from captcha_reader.training import settle_norms  # noqa: E402
from captcha_reader.weights import MODELS, check_weights, read_results  # noqa: E402
from notebooks_py import ch4_gpu_training as ch4  # noqa: E402
from notebooks_py import ch7_ctc_pytorch as ch7  # noqa: E402

torch.set_num_threads(1)  # the networks here are tiny


@pytest.fixture
def tiny():
    """Few glyphs, a tiny network, and three epochs of two batches."""
    bank = GlyphBank(1, width=192, colors=2, copies=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ch4, "fresh_bank", lambda seed, epoch, width: bank)
        patch.setitem(train_torch.SIZES, "slim", {"filters": (4, 4), "stride": 4, "tall": 0})
        patch.setattr(train, "EPOCH", 2)
        patch.setitem(scores.TEST_SETS, "wide-1k", scores.TEST_SETS["classic-100"])
        draw = scores.draw_test_set
        patch.setattr(scores, "draw_test_set", lambda name: draw("classic-100"))
        yield


def run(out, *more: str) -> dict[str, torch.Tensor]:
    """Train in the folder as make does, with 20 held-out captchas; return the averaged weights."""
    out.mkdir(exist_ok=True)
    words = ["MODEL=pytorch", "BUDGET=48", "BATCH=8", "SEED=5", *more]
    chosen = options.read(words, "train", train.DEFAULTS, train.ALLOWED)
    start = functools.partial(train.open_run, out, chosen)
    results = train_torch.train(chosen, out, start, valid=20)
    train.write_results(chosen, out, results)
    assert results["pictures"] == 48 and results["model"] == "ctc_pytorch"
    return torch.load(out / "model.pt", weights_only=True)


def test_a_stopped_run_goes_on_to_the_same_bits(tiny, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    epoch, calls = train_torch.Run.epoch, []

    def stop(self, data):
        calls.append(data.epoch)
        if len(calls) == 3:
            next(ch7.train(self.model, [train_torch.Ink(data)[0]], self.optimizer, self.cycle))
            raise KeyboardInterrupt
        return epoch(self, data)

    monkeypatch.setattr(train_torch.Run, "epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped")
    resumed = run(tmp_path / "stopped")
    assert calls == [0, 1, 2, 2]
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    logs = [pd.read_csv(tmp_path / name / "log.csv") for name in ("whole", "stopped")]
    assert logs[0].loss.tolist() == logs[1].loss.tolist() and len(logs[0]) == 3


def test_half_precision_trains_nearly_the_same_and_keeps_whole_weights(tiny, tmp_path):
    whole, half = run(tmp_path / "whole"), run(tmp_path / "half", "PRECISION=mixed_bfloat16")
    assert {weights.dtype for weights in half.values()} == {
        weights.dtype for weights in whole.values()
    }
    apart = [(whole[name] - half[name]).abs().max() for name in whole if "." in name]
    assert 0 < max(apart) < 0.05


def test_half_precision_learns_from_step_to_step(tiny):
    """The rounded weights are new in each step, not those with which the epoch began."""
    chosen = train.DEFAULTS | {"RATE": "0.03", "PRECISION": "float32"}
    data = train_torch.PracticeSequence(8, 30, seed=5, labels="ctc", width=192)
    whole, half = (
        train_torch.Run(chosen | {"PRECISION": precision}, 30).epoch(data)
        for precision in ("float32", "mixed_bfloat16")
    )
    assert half == pytest.approx(whole, rel=0.01)


def test_a_keras_network_reads_the_same_in_pytorch(tmp_path):
    """Where no stride makes the two libraries pad other sides."""
    rng = stream(1, "twin", epoch=0, index=0)
    pictures = draw_captchas(random_texts(rng, 6), rng)
    X, theirs = pictures.astype("float32") / 255, ch4.build_ctc(**ch4.SLIM | {"stride": 1})
    settle_norms(theirs, X)
    theirs.save(tmp_path / "net.keras")
    ours = ch7.CTCNet(**ch7.SLIM, stride=1).eval()
    ours.load_state_dict(train_torch.from_keras(tmp_path / "net.keras"))
    with torch.inference_mode():
        found = ours(ch7.to_ink(pictures)).permute(1, 0, 2).numpy()
    expected = theirs.predict(X, verbose=0)
    assert np.allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_what_ships_reads_what_it_says():
    """On a hundred captchas, within what chance allows for the accuracy on 10,000."""
    results = read_results("ctc_pytorch")
    path = check_weights(MODELS / "ctc_pytorch.pt", results["sha256"])
    pictures, texts = next(testsets.draw_test_set("wide-1k"))
    answers = evaluate.reader(path, results["size"])(pictures)
    right = sum(a == b for a, b in zip(answers, texts, strict=True))
    low, high = scores.wilson(right, 100, z=3.3)  # 99.9 %
    told = results["scores"]["wide-10k"]
    assert low < told["right"] / told["n"] < high
