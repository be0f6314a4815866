"""Lesson 3: CTC, the sequence model, decoding, and the evaluation callback."""

import itertools
import json
import math

import keras
import numpy as np
import plateau
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from notebooks_py import ch2_cnn as ch2
from notebooks_py import ch3_ctc as ch3
from notebooks_py.ch1_captcha_preview import ALPHABET, CaptchaSequence, encode

SLIM = {"filters": (4, 4), "convs": 1, "stride": 4, "tall": 1, "rnn": (4,), "momentum": 0.5}
TINY = SLIM | {"rnn": ()}  # a GRU takes long to compile


def numbers(seed: int, *shape: int) -> np.ndarray:
    """Logits that are far from equal."""
    return np.random.default_rng(seed).normal(0, 2, shape).astype("float32")


def log_probability(logits: np.ndarray, path: tuple[int, ...]) -> float:
    """The log-probability of one path, logits (steps, classes)."""
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return float(sum(row[answer] for row, answer in zip(logs, path, strict=True)))


# --- the toy -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ([], []),
        ([0, 0, 0], []),
        ([1, 1, 1], [1]),
        ([1, 0, 1], [1, 1]),
        ([0, 2, 2, 1, 0, 1, 1], [2, 1, 1]),
        ([3, 2, 3], [3, 2, 3]),
    ],
)
def test_collapse_merges_first_and_drops_blanks_then(path, label):
    assert ch3.collapse(path) == label


@given(st.lists(st.integers(1, 2), min_size=1, max_size=4))
def test_a_label_fits_exactly_from_the_steps_it_needs(label):
    needed = ch3.steps_needed(label)
    assert not ch3.alignments(label, needed - 1, 3)
    assert len(ch3.alignments(label, needed, 3)) == 1


def test_steps_and_alignments_of_known_words():
    assert ch3.steps_needed([1, 1, 1, 1]) == 7
    assert ch3.alignments([1, 1, 1, 1], 7, 2) == [(1, 0, 1, 0, 1, 0, 1)]
    # n different neighbours in T steps have binomial(T + n, 2 n) alignments
    for steps, n in itertools.product(range(1, 7), range(1, 4)):
        label = [1 + k % 2 for k in range(n)]
        assert len(ch3.alignments(label, steps, 3)) == math.comb(steps + n, 2 * n)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.integers(2, 3), st.integers(0, 10**6), st.data())
def test_loss_equals_the_sum_over_all_alignments(steps, classes, seed, data):
    label = data.draw(
        st.lists(st.integers(1, classes - 1), min_size=1, max_size=steps).filter(
            lambda label: ch3.steps_needed(label) <= steps
        )
    )
    logits = numbers(seed, 1, steps, classes)
    loss = ops.convert_to_numpy(ch3.ctc_loss(np.array([label]), logits))
    assert loss.shape == (1,)
    assert loss[0] == pytest.approx(ch3.loss_by_hand(logits[0], label), abs=1e-4)


def test_loss_is_keras_own_for_real_sizes():
    labels = np.random.default_rng(1).integers(1, 37, (64, 4))
    logits = numbers(2, 64, 16, 37)
    ours = ops.convert_to_numpy(ch3.ctc_loss(labels, logits))
    assert np.array_equal(ours, ops.convert_to_numpy(keras.losses.ctc(labels, logits)))


def test_loss_by_hand_of_an_impossible_text_is_infinite():
    assert ch3.loss_by_hand(numbers(0, 6, 2), [1, 1, 1, 1]) == math.inf


@given(st.floats(0.05, 0.95), st.integers(3, 6), st.integers(1, 3))
def test_blind_loss_equals_the_sum_over_all_alignments(blank, steps, length):
    share = (1 - blank) / 2
    logits = np.tile(np.log([blank, share, share]), (steps, 1))
    label = [1 + k % 2 for k in range(length)]
    assert ch3.blind_loss(blank, steps, length, classes=2) == pytest.approx(
        ch3.loss_by_hand(logits, label), abs=1e-9
    )


# --- labels and logits that make no sense ---------------------------------------------------------

BAD_LABELS = [
    ([[1, 0, 2, 3]], "label 0 is no character: characters are 1..4 and 0 is the blank"),
    ([[1, 2, 3, 4], [1, 2, 3, 5]], "label 5 is no character"),
    ([[1, 2, 3, -1]], "label -1 is no character"),
    ([[1, 1, 1, 1]], r"\[1, 1, 1, 1\] needs 7 steps .* but the logits have 6"),
    ([[1, 2, 3, 4, 1, 2, 3]], "labels of 7 characters .* but the logits have 6"),
    ([1, 2, 3, 4], r"labels have shape \(4,\)"),
]


@pytest.mark.parametrize(("labels", "words"), BAD_LABELS)
def test_bad_labels_are_refused(labels, words):
    labels = np.array(labels)
    with pytest.raises(ValueError, match=words):
        ch3.ctc_loss(labels, numbers(0, len(labels), 6, 5))


@pytest.mark.parametrize("shape", [(6, 5), (1, 6, 5), (2, 6, 5, 1)])
def test_logits_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected \(n, length\) and \(n, steps, classes\)"):
        ch3.ctc_loss(np.array([[1, 2], [3, 4]]), numbers(0, *shape))


def toy_model(steps: int = 6, classes: int = 4) -> keras.Model:
    """A model whose logits are its input through one dense layer."""
    x = keras.Input((steps, 3))
    return keras.Model(x, keras.layers.Dense(classes + 1, name="logits")(x))


@pytest.mark.parametrize("labels", [[1, 0, 2, 3], [1, 2, 3, 5], [1, 1, 1, 1]])
def test_in_training_a_bad_label_is_an_infinite_loss_and_moves_no_weight(labels):
    """Nothing in a compiled graph can raise an error about a value."""
    keras.utils.set_random_seed(0)
    model = toy_model()
    ch3.compile_ctc(model, 0.1)
    before = model.get_weights()
    X = numbers(0, 4, 6, 3)
    history = model.fit(X, np.tile(labels, (4, 1)), epochs=2, batch_size=2, verbose=0).history
    assert history["loss"] == [math.inf, math.inf]
    assert all(map(np.array_equal, model.get_weights(), before))
    good = model.fit(X, np.tile([1, 2, 3, 3], (4, 1)), epochs=1, verbose=0).history["loss"]
    assert math.isfinite(good[0])
    assert not np.array_equal(model.get_weights()[0], before[0])


def test_in_training_too_long_labels_are_an_error():
    model = toy_model()
    ch3.compile_ctc(model, 0.1)
    with pytest.raises(ValueError, match="labels of 7 characters"):
        model.fit(numbers(0, 4, 6, 3), np.tile([1, 2, 3, 4, 1, 2, 3], (4, 1)), verbose=0)


def test_a_compiled_model_can_be_loaded(tmp_path):
    model = toy_model()
    ch3.compile_ctc(model, 0.1)
    model.save(tmp_path / "toy.keras")
    loaded = keras.models.load_model(tmp_path / "toy.keras")
    assert loaded.evaluate(numbers(0, 2, 6, 3), np.array([[1, 2], [3, 4]]), verbose=0) > 0


# --- the network ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full() -> keras.Model:
    return ch3.build_ctc()


def test_architecture_is_the_originals(full):
    assert full.count_params() == 3_157_317
    assert full.input_shape == (None, 64, 128, 3)
    assert full.output_names == ["logits"]
    assert full.output_shape == (None, 16, 37)
    kinds = [type(layer).__name__ for layer in full.layers]
    block = ["Conv2D", "BatchNormalization", "Activation"] * 2 + ["MaxPooling2D"]
    tail = ["Permute", "Reshape", "Bidirectional", "Bidirectional", "Dense"]
    assert kinds == ["InputLayer", *block * 5, *tail]
    pools = [layer.pool_size for layer in full.layers if "pool" in layer.name]
    assert pools == [(2, 2)] * 3 + [(2, 1)] * 2
    assert full.get_layer("sequence").output.shape == (None, 16, 512)
    assert full.get_layer("logits").activation.__name__ == "linear"
    cnn = ch2.build_cnn()
    for ours, theirs in zip(full.layers[:36], cnn.layers[:36], strict=True):
        if "pool" not in ours.name:
            assert ours.get_config() == theirs.get_config()


def test_columns_become_steps_from_left_to_right(full):
    """Each step holds one column of the feature map: its rows, and in each its channels."""
    maps = numbers(0, 1, 2, 16, 256)
    x = full.get_layer("sequence")(full.get_layer("columns")(maps))
    for column in range(16):
        expected = maps[0, :, column].reshape(-1)
        assert np.array_equal(ops.convert_to_numpy(x)[0, column], expected)


def test_grus_can_use_cudnn(full):
    for name in ("gru1", "gru2"):
        for gru in (full.get_layer(name).forward_layer, full.get_layer(name).backward_layer):
            assert (gru.units, gru.activation.__name__) == (128, "tanh")
            assert (gru.recurrent_activation.__name__, gru.use_cudnn) == ("sigmoid", "auto")
            assert gru.reset_after and gru.use_bias and not gru.unroll
            assert not gru.recurrent_dropout


def test_arguments_reach_the_network():
    model = ch3.build_ctc(
        96, 32, 10, (4, 8, 8), convs=1, kernel=5, stride=2, tall=1, rnn=(), init="zeros",
        momentum=0.5,
    )  # fmt: skip
    assert model.input_shape == (None, 32, 96, 3)
    assert model.output_shape == (None, 12, 11)
    assert not [layer for layer in model.layers if "gru" in layer.name]
    conv, norm = model.get_layer("block1_conv1"), model.get_layer("block2_norm1")
    assert (conv.kernel_size, conv.strides, norm.momentum) == ((5, 5), (2, 2), 0.5)
    assert not np.any(conv.get_weights()[0])
    assert ch3.build_ctc(**SLIM | {"rnn": (3, 5)}).get_layer("gru2").forward_layer.units == 5


def test_a_picture_too_small_for_the_blocks_is_refused():
    with pytest.raises(ValueError, match="128x16 pixels are too few.*at least 8x32"):
        ch3.build_ctc(height=16)
    with pytest.raises(ValueError, match="at least 16x64"):
        ch3.build_ctc(width=15, stride=2)


def test_diagram_has_every_layer(full, tmp_path):
    text = ch2.layer_graph(full).to_string()
    assert all(f"{layer.name}\n" in text.replace("\\n", "\n") for layer in full.layers)
    assert ch2.diagram(full, tmp_path).name == "ctc.png"


# --- decoding -------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(2, 4), st.integers(0, 3), st.integers(0, 10**6))
def test_exact_is_the_best_path_with_that_many_characters(steps, classes, length, seed):
    logits = numbers(seed, 1, steps, classes)
    paths = [
        path
        for path in itertools.product(range(classes), repeat=steps)
        if len(ch3.collapse(path)) == length
    ]
    if not paths:
        with pytest.raises(ValueError, match=f"no path of {steps} steps has {length} characters"):
            ch3.best_paths(logits, length)
        return
    best = max(paths, key=lambda path: log_probability(logits[0], path))
    assert tuple(ch3.best_paths(logits, length)[0]) == best


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(0, 8))
def test_exact_equals_greedy_wherever_greedy_has_the_length(seed, blank):
    logits = numbers(seed, 20, 8, 37)
    logits[:, :, 0] += blank
    greedy = ch3.decode_ctc(logits, "greedy")
    exact = ch3.decode_ctc(logits, "exact")
    assert {len(text) for text in exact} == {4}
    assert all(e == g for e, g in zip(exact, greedy, strict=True) if len(g) == 4)


def test_rows_of_a_batch_do_not_mix():
    logits = numbers(7, 5, 6, 4)
    together = ch3.best_paths(logits, 3)
    for row, path in zip(logits, together, strict=True):
        assert np.array_equal(ch3.best_paths(row[None], 3)[0], path)


def test_greedy_is_keras_own():
    logits = numbers(3, 50, 16, 37)
    decoded, _ = ops.ctc_decode(logits, np.full(50, 16), strategy="greedy", mask_index=0)
    expected = [ch3.spell(row[row > 0]) for row in ops.convert_to_numpy(decoded)[0]]
    assert ch3.decode_ctc(logits) == expected


def test_beam_finds_the_most_likely_text():
    for seed in range(20):
        logits = numbers(seed, 1, 4, 4) / 2
        labels = {tuple(ch3.collapse(p)) for p in itertools.product(range(4), repeat=4)}
        best = min(labels, key=lambda label: ch3.loss_by_hand(logits[0], label))
        assert ch3.decode_ctc(logits, "beam", "ABC") == [ch3.spell(best, "ABC")]


def test_bad_logits_are_refused():
    good = numbers(0, 2, 16, 37)
    for logits in (good[0], good[..., :36], good[None]):
        with pytest.raises(ValueError, match=r"expected \(n, steps, 37\)"):
            ch3.decode_ctc(logits)
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="NaN or infinite"):
            ch3.decode_ctc(np.where(np.arange(37) == 5, bad, good))
    with pytest.raises(ValueError, match="strategy='best': allowed are greedy, beam, exact"):
        ch3.decode_ctc(good, "best")


# --- reading and training -------------------------------------------------------------------------


def constant_reader(text: str) -> keras.Model:
    """A network that sees `text` in every picture: its last layer says so whatever comes in."""
    model = ch3.build_ctc(filters=(4, 4), stride=4, convs=1, tall=1, rnn=(16,))
    steps = model.output_shape[1]
    x = keras.Input((64, 128, 3))
    path = np.zeros(steps, int)
    path[1 : 1 + 2 * len(text) : 2] = encode([text], length=len(text))[0] + 1
    rows = keras.layers.Flatten()(x)
    bias = (9 * np.eye(37)[path]).reshape(-1)
    dense = keras.layers.Dense(steps * 37, "linear", name="all")
    y = keras.layers.Reshape((steps, 37), name="logits")(dense(rows))
    reader = keras.Model(x, y)
    dense.set_weights([np.zeros((64 * 128 * 3, steps * 37)), bias])
    return reader


def test_read_ctc_reads_what_the_logits_say():
    pictures, _ = CaptchaSequence(3, 1, seed=1).draw(0)
    model = constant_reader("K0OO9")
    assert ch3.read_ctc(model, pictures) == ["K0OO9"] * 3
    assert {len(text) for text in ch3.read_ctc(model, pictures, "exact")} == {4}
    with pytest.raises(ValueError, match="uint8"):
        ch3.read_ctc(model, pictures / 255)


def test_whole_texts_count_in_val_acc():
    valid = CaptchaSequence(4, 2, seed=1, labels="ctc", split="valid")
    text = valid.draw(1)[1][2]
    for answer, share in [(text, 1 / 8), (text + "A", 0)]:
        callback = ch3.ReadingAccuracy(valid)
        callback.set_model(constant_reader(answer))
        callback.on_train_begin()
        logs = {}
        callback.on_epoch_end(0, logs)
        assert logs == {"val_acc": share}


def sets(**arguments) -> list[CaptchaSequence]:
    return [
        CaptchaSequence(4, 2, seed=1, split=split, **{"labels": "ctc"} | arguments)
        for split in ("train", "valid")
    ]


def test_val_acc_reaches_log_checkpoint_and_early_stopping(tmp_path):
    keras.utils.set_random_seed(1)
    data, valid = sets()
    stopping = keras.callbacks.EarlyStopping("val_acc", mode="max", patience=1)
    best = tmp_path / "best.weights.h5"
    saving = keras.callbacks.ModelCheckpoint(
        best, monitor="val_acc", mode="max", save_best_only=True, save_weights_only=True
    )
    log = ch2.train_in_stages(
        ch3.build_ctc(**SLIM),
        ch3.compile_ctc,
        data,
        valid,
        tmp_path / "run",
        [(1e-3, 5)],
        patience=9,
        callbacks=[ch3.ReadingAccuracy(valid), saving, stopping],
    )
    assert log.val_acc.tolist() == [0, 0]  # nothing is read after two steps, so it stopped
    assert best.exists()
    assert stopping.best == 0
    assert np.isfinite(log.val_loss).all()


def test_training_resumes_after_an_epoch(tmp_path):
    """An epoch, an interruption and the rest are the same as all at once."""
    logs = []
    for folder, parts in [("whole", [(1, 1)]), ("parts", [(1, 0), (1, 1)])]:
        keras.utils.set_random_seed(1)
        model = ch3.build_ctc(**TINY)
        for number, (first, second) in enumerate(parts):
            data, valid = sets()
            log = ch2.train_in_stages(
                model,
                ch3.compile_ctc,
                data,
                valid,
                tmp_path / folder,
                [(1e-3, first), (1e-4, second)],
                resume=number > 0,
                callbacks=[ch3.ReadingAccuracy(valid)],
            )
        logs.append(log)
        assert len(log) == 2
    assert logs[0].equals(logs[1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"labels": "one-hot"}, "labels='one-hot': use CaptchaSequence"),
        ({"alphabet": "0123456789"}, "10 characters and the blank need 11 logits"),
        ({"length": 9}, "texts like '000000000' need 17 steps, the model has 16"),
    ],
)
def test_data_that_the_model_cannot_learn_is_refused_before_training(arguments, words):
    _, valid = sets(**arguments)
    callback = ch3.ReadingAccuracy(valid)
    callback.set_model(ch3.build_ctc(**TINY))
    assert callback.model.output_shape == (None, 16, len(ALPHABET) + 1)
    with pytest.raises(ValueError, match=words):
        callback.on_train_begin()


def test_watch_notes_the_first_and_every_nth_batch():
    data, valid = sets()
    X, labels = valid[0]
    watch = ch3.Watch(X, labels, every=2)
    model = ch3.build_ctc(**TINY)
    ch3.compile_ctc(model, 1e-3)
    model.fit(data, epochs=2, verbose=0, callbacks=[watch])
    assert [batches for batches, _, _ in watch.notes] == [1, 2, 4]
    assert all(math.isfinite(loss) and 0 <= blank <= 1 for _, loss, blank in watch.notes)


def test_make_plateau_trains_each_way_with_each_seed_once(tmp_path, monkeypatch):
    out, name = tmp_path / "plateau.json", "batches of 16 at 2e-3"
    monkeypatch.setattr(plateau, "TRIALS", {name: plateau.TRIALS[name]})
    words = ["plateau", f"OUT={out}", "PICTURES=30", "SET=classic-100", "SEEDS=3"]
    monkeypatch.setattr("sys.argv", words)
    plateau.main()
    (row,) = json.loads(out.read_text())["runs"]
    assert (row["trial"], row["seed"], row["pictures"], row["steps"]) == (name, 3, 30, 2)
    assert row["loss"] > 5 and row["n"] == 100
    monkeypatch.setattr(plateau, "attempt", lambda **options: {"loss": 1.0, "right": 7})
    monkeypatch.setattr("sys.argv", [*words[:-1], "SEEDS=3,4"])
    plateau.main()
    first, second = json.loads(out.read_text())["runs"]
    assert first == row and (second["seed"], second["right"]) == (4, 7)
    monkeypatch.setattr("sys.argv", ["plateau", "SEEDS=3 4"])
    with pytest.raises(SystemExit, match="SEEDS=3 4 must be whole numbers with commas"):
        plateau.main()
