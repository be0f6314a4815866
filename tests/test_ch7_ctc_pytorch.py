"""Lesson 7: the same model in PyTorch, and a training loop that can be interrupted anywhere."""

import itertools
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="lesson 7 needs PyTorch: make setup-torch")

from notebooks_py import ch2_cnn as ch2  # noqa: E402
from notebooks_py import ch7_ctc_pytorch as ch7  # noqa: E402
from notebooks_py.ch1_captcha_preview import (  # noqa: E402
    CaptchaSequence,
    decode,
    encode,
    fingerprint,
)

TRAIN = Path(__file__).parent / "train_tiny_ctc_pytorch.py"
CPU = torch.device("cpu")
WIDE = "40b78118b591f9baefdf25ef562cb4d97573c310e867d1c91c0d15d2b9b05018"
torch.set_num_threads(1)  # the networks here are tiny


@pytest.fixture(scope="module")
def full():
    torch.manual_seed(1)
    return ch7.CTCNet()


# --- data ----------------------------------------------------------------------------------------


def test_a_batch_is_that_of_lesson_1_with_the_channels_first():
    data = ch7.CaptchaBatches(3, 4, seed=5)
    pictures, labels = data[2, 1]
    assert (pictures.dtype, tuple(pictures.shape)) == (torch.uint8, (3, 3, 64, 192))
    assert (labels.dtype, len(data)) == (torch.int64, 4)
    keras_side = CaptchaSequence(3, 4, seed=5, labels="ctc", width=192)
    keras_side.epoch = 2
    X, y = keras_side[1]
    floats = ch7.to_floats(pictures, CPU)
    assert np.array_equal(floats.permute(0, 2, 3, 1).numpy(), X)
    assert np.array_equal(labels.numpy(), y)


def test_batches_do_not_depend_on_workers_nor_on_what_was_asked_before():
    def hashes(workers: int, epochs: list[int]) -> dict[int, list[str]]:
        loader = ch7.make_loader(ch7.CaptchaBatches(2, 3, seed=5), workers)
        found = {}
        for epoch in epochs:
            loader.sampler.set_epoch(epoch)
            found[epoch] = [fingerprint(x.numpy(), y.numpy()) for x, y in loader]
        return found

    here = hashes(0, [0, 1, 2])
    assert len({*itertools.chain(*here.values())}) == 9
    assert hashes(2, [0, 1, 2]) == here
    assert hashes(2, [2]) == {2: here[2]}


def test_a_loader_takes_nothing_from_the_global_generator():
    before = torch.get_rng_state()
    for workers in (0, 1):
        assert len(list(ch7.make_loader(ch7.CaptchaBatches(1, 2, seed=5), workers))) == 2
    assert torch.equal(torch.get_rng_state(), before)


def test_no_more_workers_than_cores(monkeypatch):
    monkeypatch.setattr(ch7.os, "sched_getaffinity", lambda pid: {0}, raising=False)
    loader = ch7.make_loader(ch7.CaptchaBatches(1, 2, seed=5), workers=4)
    assert (loader.num_workers, loader.persistent_workers) == (1, True)


def test_sizes_below_one_and_batches_outside_are_errors():
    with pytest.raises(ValueError, match="steps=0: both must be at least 1"):
        ch7.CaptchaBatches(1, 0, seed=5)
    with pytest.raises(IndexError, match="batch 4 of 4"):
        ch7.CaptchaBatches(1, 4, seed=5)[0, 4]


# --- network -------------------------------------------------------------------------------------


def test_architecture_is_the_originals(full):
    kinds = [type(m).__name__ for block in full.blocks for m in block]
    assert kinds == (["Conv2d", "BatchNorm2d", "ReLU"] * 2 + ["MaxPool2d"]) * 5
    convs = [m for m in full.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [c.out_channels for c in convs] == [32, 32, 64, 64, 128, 128, 256, 256, 256, 256]
    assert {(c.kernel_size, c.padding) for c in convs} == {((3, 3), (1, 1))}
    pools = [m.kernel_size for m in full.modules() if isinstance(m, torch.nn.MaxPool2d)]
    assert pools == [(2, 2)] * 4 + [(2, 1)]
    lstm = full.lstm
    assert (lstm.input_size, lstm.hidden_size, lstm.num_layers) == (512, 128, 2)
    assert lstm.bidirectional and full.dropout.p == 0.25
    assert (full.scores.in_features, full.scores.out_features, full.steps) == (256, 37, 12)
    assert full(torch.zeros(3, 3, 64, 192)).shape == (12, 3, 37)


def test_arguments_reach_the_network():
    model = ch7.CTCNet((4, 8), 1, hidden=5, layers=1, dropout=0, width=96, height=32, classes=11)
    assert model(torch.zeros(2, 3, 32, 96)).shape == (48, 2, 11)
    assert model.steps == 48


def test_wrong_pictures_are_refused(full):
    with pytest.raises(ValueError, match=r"expected \(n, 3, 64, 192\): put the channels first"):
        full(torch.zeros(2, 64, 192, 3))
    with pytest.raises(ValueError, match="192x16 pixels are too few for stride 1, 5 blocks"):
        ch7.CTCNet(height=16)
    pictures = np.zeros((2, 64, 192, 3), np.uint8)
    with pytest.raises(ValueError, match="uint8"):
        ch7.read_ctc(full, pictures / 255)
    with pytest.raises(ValueError, match=r"\(n, 64, 192, 3\)"):
        ch7.read_ctc(full, pictures[:, :, :128])


# --- loss and decoding ---------------------------------------------------------------------------


def collapse(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(k for k, _ in itertools.groupby(path) if k)


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_loss_is_the_sum_over_all_paths(data):
    """Every path is walked: at most 4^5 = 1,024."""
    steps, classes = data.draw(st.integers(1, 5)), data.draw(st.integers(2, 4))
    length = data.draw(st.integers(1, 3))
    draw = st.lists(st.integers(1, classes - 1), min_size=length, max_size=length)
    label = data.draw(draw)
    numbers = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(steps, classes))
    logits = torch.tensor(numbers * 2)[:, None]
    p = torch.softmax(logits[:, 0], -1).numpy()
    total = sum(
        math.prod(p[t, c] for t, c in enumerate(path))
        for path in itertools.product(range(classes), repeat=steps)
        if collapse(path) == tuple(label)
    )
    if total == 0:
        with pytest.raises(ValueError, match=f"but there are {steps}"):
            ch7.ctc_loss(logits, torch.tensor([label]))
    else:
        loss = ch7.ctc_loss(logits, torch.tensor([label])).item()
        assert loss == pytest.approx(-math.log(total), abs=1e-4)


def test_loss_and_gradient_are_those_of_keras():
    import keras

    numbers = np.random.default_rng(3).normal(size=(6, 12, 37)).astype("float32") * 3
    labels = encode(["A0Z9", "AAAA", "O0O0", "1123", "WXYZ", "5566"]) + 1
    logits = torch.tensor(numbers).permute(1, 0, 2)
    theirs = float(keras.losses.CTC()(labels, numbers))
    assert ch7.ctc_loss(logits, torch.tensor(labels).long()).item() == pytest.approx(theirs, 1e-5)


def test_half_precision_is_summed_in_float32():
    logits, labels = torch.randn(12, 2, 37) * 5, torch.tensor([[1, 2, 3, 4]] * 2)
    half = logits.to(torch.bfloat16)
    assert ch7.ctc_loss(half, labels) == ch7.ctc_loss(half.float(), labels)
    assert ch7.ctc_loss(half, labels).dtype == torch.float32


@pytest.mark.parametrize(
    ("shape", "labels", "words"),
    [
        ((12, 37), [[1, 2]], "time comes first"),
        ((2, 12, 37), [[1, 2]] * 2, r"labels \(2, 2\), expected \(T, N, classes\)"),
        ((12, 1, 37), [[0, 2]], "label 0 is outside 1..36: 0 is the blank"),
        ((12, 1, 37), [[37, 2]], "label 37 is outside 1..36"),
        ((12, 1, 37), [[1, -1]], "label -1 is outside"),
        ((6, 2, 37), [[1, 2, 3, 4], [7, 7, 7, 7]], r"\[7, 7, 7, 7\] needs 7 columns.*there are 6"),
    ],
)
def test_what_ctc_cannot_read_is_an_error(shape, labels, words):
    with pytest.raises(ValueError, match=words):
        ch7.ctc_loss(torch.zeros(shape), torch.tensor(labels))


@given(st.lists(st.lists(st.integers(0, 36), min_size=9, max_size=9), min_size=1, max_size=4))
def test_greedy_is_the_collapse_rule(paths):
    logits = torch.nn.functional.one_hot(torch.tensor(paths).T, 37).float()
    expected = [decode(np.array([collapse(path)], int) - 1)[0] for path in paths]
    assert ch7.greedy(logits) == expected


def test_greedy_refuses_other_classes():
    with pytest.raises(ValueError, match=r"expected \(T, N, 37\)"):
        ch7.greedy(torch.zeros(12, 1, 36))


# --- reading and counting ------------------------------------------------------------------------


def test_a_reader_is_in_eval_mode_and_alone(full):
    """One captcha is read the same whatever else is in the batch, and nothing is learned."""
    full.train()
    before = {name: value.clone() for name, value in full.state_dict().items()}
    pictures, _ = next(ch2.draw_test_set("wide-1k"))
    texts = ch7.read_ctc(full, pictures[:8])
    assert texts[3:4] == ch7.read_ctc(full, pictures[3:4])
    assert all(torch.equal(before[name], value) for name, value in full.state_dict().items())


def test_wide_test_sets_have_their_own_pictures_and_evaluate_counts_them():
    pictures, texts = next(ch2.draw_test_set("wide-1k"))
    assert pictures.shape == (100, 64, 192, 3)
    assert fingerprint(pictures, encode(texts)) == WIDE
    longer, _ = next(ch2.draw_test_set("wide-10k"))
    assert np.array_equal(longer, pictures)
    truth = iter([text for _, texts in ch2.draw_test_set("wide-1k") for text in texts])
    score = ch2.evaluate(lambda pictures: [next(truth) for _ in pictures], "wide-1k")
    assert (score.n, score.right) == (1000, 1000)


def test_validate_counts_and_averages():
    """A network whose scores are those of the labels, except for every second captcha."""

    class Oracle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.queue = iter([loader.dataset[0, i][1] for i in range(2)])

        def forward(self, pictures):
            labels = next(self.queue).clone()
            labels[::2, 0] = labels[::2, 0] % 36 + 1
            path = torch.zeros(12, len(labels), dtype=torch.long)
            path[1:9:2] = labels.T
            return torch.nn.functional.one_hot(path, 37).float() * 50

    loader = ch7.make_loader(ch7.CaptchaBatches(4, 2, seed=5, split="valid"))
    model = Oracle()
    loss, accuracy = ch7.validate(model, loader)
    assert accuracy == 0.5
    assert 20 < loss < 50
    assert not model.training


# --- training that is interrupted ----------------------------------------------------------------


def tiny(seed: int = 3):
    torch.manual_seed(seed)
    model = ch7.CTCNet((4, 4, 4, 4, 4), convs=1, hidden=8, layers=1)
    data = ch7.make_loader(ch7.CaptchaBatches(4, 2, seed=3))
    valid = ch7.make_loader(ch7.CaptchaBatches(4, 1, seed=3, split="valid"))
    return model, data, valid


STAGES = [(1e-3, 3), (1e-4, 2)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    model, data, valid = tiny()
    return model, ch7.train(model, data, valid, folder, STAGES), folder


def same_weights(one, other) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_log_is_one_of_lesson_2(whole):
    _, log, folder = whole
    assert list(log.columns) == ["epoch", "stage", "learning_rate", "loss", "val_loss", "val_acc"]
    assert log.epoch.tolist() == [0, 1, 2, 3, 4]
    assert log.stage.tolist() == [1, 1, 1, 2, 2]
    assert log.learning_rate.tolist() == [1e-3] * 3 + [1e-4] * 2
    pd.testing.assert_frame_equal(ch2.read_log(folder), log)
    assert sorted(path.name for path in folder.iterdir()) == ["log.csv", "run.json", "state.pt"]


def test_the_model_ends_with_its_best_weights(whole):
    model, log, _ = whole
    loss, _ = ch7.validate(model, tiny()[2])
    assert loss == pytest.approx(log.val_loss.min(), rel=1e-6)


def test_equal_seeds_give_equal_weights_and_other_seeds_do_not(whole, tmp_path):
    model, data, valid = tiny()
    ch7.train(model, data, valid, tmp_path / "again", STAGES)
    assert same_weights(model, whole[0])
    other, data, valid = tiny(seed=4)
    ch7.train(other, data, valid, tmp_path / "other", STAGES)
    assert not same_weights(other, whole[0])


def test_workers_change_no_weight(whole, tmp_path):
    model, data, valid = tiny()
    data = ch7.make_loader(data.dataset, workers=2)
    ch7.train(model, data, valid, tmp_path / "workers", STAGES)
    assert same_weights(model, whole[0])


class Blackout(Exception):
    """The lights go out."""


@pytest.mark.parametrize("place", ["the next step", "torch.save", "replace_text"])
@pytest.mark.parametrize("epochs", [0, 1, 2, 3, 4])
def test_an_interrupted_run_resumes_to_the_same_weights(
    whole, tmp_path, monkeypatch, epochs, place
):
    """Stop after `epochs` epochs: in a step, before the state is written, or before the log is."""
    folder = tmp_path / "run"
    calls = itertools.count()
    # two training batches and one for validation in each epoch
    first = 3 * epochs + 1 if place == "the next step" else epochs
    owner, name = {
        "the next step": (ch7, "ctc_loss"),
        "torch.save": (ch7.torch, "save"),
        "replace_text": (ch7, "replace_text"),
    }[place]
    original = getattr(owner, name)

    def stop(*arguments, **kwargs):
        if next(calls) == first:
            raise Blackout
        return original(*arguments, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stop)
        with pytest.raises(Blackout):
            ch7.train(*tiny(), folder, STAGES)
    done = epochs + (place == "replace_text")
    model, data, valid = tiny()
    if done:
        torch.manual_seed(99)  # what counts from here on is the state in the file
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
    log = ch7.train(model, data, valid, folder, STAGES, resume=True)
    assert same_weights(model, whole[0])
    pd.testing.assert_frame_equal(log, whole[1])


def test_the_state_of_the_generator_matters(whole, tmp_path):
    """Without it the dropout is another one: the test above is able to fail."""
    folder = tmp_path / "run"
    ch7.train(*tiny(), folder, [(1e-3, 2), (1e-4, 0)])
    state = torch.load(folder / "state.pt")
    state["rng"] = torch.Generator().manual_seed(99).get_state()
    torch.save(state, folder / "state.pt")
    model, data, valid = tiny()
    log = ch7.train(model, data, valid, folder, STAGES, resume=True)
    assert log.loss.tolist()[:2] == whole[1].loss.tolist()[:2]
    assert log.loss.tolist()[2] != whole[1].loss.tolist()[2]


def test_a_killed_process_resumes_to_the_same_weights(tmp_path):
    """Kill a real process with two workers, without warning, once an epoch is in its log."""
    command = [sys.executable, str(TRAIN)]
    subprocess.run([*command, tmp_path / "whole"], check=True, capture_output=True)
    folder = tmp_path / "run"
    process = subprocess.Popen([*command, folder], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "log.csv").exists() and len(ch2.read_log(folder)) >= 1:
            break
        time.sleep(0.005)
    process.kill()
    process.wait()
    before = ch2.read_log(folder)
    assert 1 <= len(before) < 5, "killed too late to show anything"
    subprocess.run([*command, folder, "resume"], check=True, capture_output=True)
    pd.testing.assert_frame_equal(ch2.read_log(folder), ch2.read_log(tmp_path / "whole"))
    weights = [torch.load(tmp_path / name / "final.pt") for name in ("run", "whole")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_a_finished_run_is_only_loaded(whole):
    folder = whole[2]
    before = (folder / "state.pt").read_bytes()
    model, data, valid = tiny(seed=8)
    log = ch7.train(model, data, valid, folder, STAGES, resume=True)
    assert same_weights(model, whole[0])
    pd.testing.assert_frame_equal(log, whole[1])
    assert (folder / "state.pt").read_bytes() == before


def test_patience_ends_a_stage(tmp_path, monkeypatch):
    losses = iter([5.0, 4.0, 6.0, 6.0, 3.0, 7.0, 7.0, 1.0])
    monkeypatch.setattr(ch7, "validate", lambda model, loader: (next(losses), 0.0))
    log = ch7.train(*tiny(), tmp_path / "run", [(1e-3, 9), (1e-4, 9)], patience=2)
    assert log.val_loss.tolist() == [5, 4, 6, 6, 3, 7, 7]
    assert log.stage.tolist() == [1, 1, 1, 1, 2, 2, 2]


def test_runs_are_neither_overwritten_nor_mixed(whole):
    folder = whole[2]
    before = {path: path.read_bytes() for path in folder.iterdir()}
    model, data, valid = tiny()
    with pytest.raises(FileExistsError, match="holds a run: pass resume=True"):
        ch7.train(model, data, valid, folder, STAGES)
    other = ch7.make_loader(ch7.CaptchaBatches(4, 2, seed=4))
    with pytest.raises(ValueError, match="data.seed is 4, but the run"):
        ch7.train(model, other, valid, folder, STAGES, resume=True)
    with pytest.raises(ValueError, match="network is"):
        ch7.train(ch7.CTCNet((4,) * 5, 1, hidden=8), data, valid, folder, STAGES, resume=True)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("damage", ["truncated", "empty", "another file", "another network"])
def test_a_damaged_state_is_named(tmp_path, damage):
    folder = tmp_path / "run"
    ch7.train(*tiny(), folder, [(1e-3, 1)])
    path = folder / "state.pt"
    content = path.read_bytes()
    if damage == "another file":
        torch.save({"weights": 1}, path)
    elif damage == "another network":
        state = torch.load(path)
        state["model"].popitem()
        torch.save(state, path)
    else:
        path.write_bytes(content[: len(content) // 2 if damage == "truncated" else 0])
    with pytest.raises(ValueError, match=r"state\.pt is not the state of this run"):
        ch7.train(*tiny(), folder, [(1e-3, 1)], resume=True)


def test_a_loss_that_is_no_number_is_an_error(tmp_path):
    model, data, valid = tiny()
    torch.nn.init.constant_(model.scores.bias, math.nan)
    with pytest.raises(FloatingPointError, match="the training loss is nan"):
        ch7.train(model, data, valid, tmp_path / "run", STAGES)
    assert ch2.read_log(tmp_path / "run").empty


def test_a_state_opens_without_running_code(whole):
    state = torch.load(whole[2] / "state.pt", weights_only=True)
    assert {"model", "optimizer", "scaler", "rows", "best", "rng", "cuda_rng"} == set(state)


def test_mixed_precision_trains_on_a_gpu(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    model, data, valid = tiny()
    log = ch7.train(model.to(ch7.pick_device()), data, valid, tmp_path / "run", STAGES)
    assert np.isfinite(log.loss).all()
