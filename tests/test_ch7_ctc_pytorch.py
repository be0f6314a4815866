"""Lesson 7: batches by name, the network, loss, decoding and training loop in PyTorch."""

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="lesson 7 needs PyTorch: make setup-torch")

import keras  # noqa: E402

from captcha_reader.bank import GlyphBank  # noqa: E402
from captcha_reader.drawing import draw_wide, stream  # noqa: E402
from captcha_reader.texts import decode, encode, random_texts  # noqa: E402
from notebooks_py import ch3_ctc as ch3  # noqa: E402
from notebooks_py import ch4_gpu_training as ch4  # noqa: E402
from notebooks_py import ch7_ctc_pytorch as ch7  # noqa: E402

torch.set_num_threads(1)  # the networks here are tiny


def test_a_batch_holds_the_pictures_and_labels_of_its_name():
    ink, labels = ch7.CaptchaBatches(3, seed=5)[2, 1]
    rng = stream(5, "train", epoch=2, index=1)
    texts = random_texts(rng, 3)
    assert labels.dtype == torch.int64 and decode(labels.numpy() - 1) == texts
    as_in_lesson_2 = ch3.to_ink(draw_wide(texts, rng).astype("float32") / 255)
    assert np.allclose(ink.permute(0, 2, 3, 1), as_in_lesson_2, atol=1e-6)


@pytest.mark.parametrize(("ours", "theirs"), [(ch7.SLIM, ch4.SLIM), ({}, ch3.SMALL)])
def test_the_networks_are_those_of_lessons_3_and_4(ours, theirs):
    ours, theirs = ch7.CTCNet(**ours), ch3.build_ctc(width=192, **theirs)
    # Keras counts two running averages of each normalisation among its parameters.
    trained = sum(int(np.prod(weights.shape)) for weights in theirs.trainable_variables)
    assert sum(weights.numel() for weights in ours.parameters()) == trained
    assert ours(torch.zeros(2, 1, 64, 192)).shape == (theirs.output.shape[1], 2, 37)


def test_loss_and_gradient_of_a_batch_are_those_of_keras():
    import tensorflow as tf

    labels = encode(["A0Z9", "AAAA", "O0O0", "1123", "WXYZ", "5566"]) + 1
    numbers = np.random.default_rng(3).normal(0, 3, (6, 24, 37)).astype("float32")
    logits = torch.tensor(numbers, requires_grad=True)
    loss = ch7.ctc_loss(logits.permute(1, 0, 2), torch.from_numpy(labels).long())
    loss.backward()
    with tf.GradientTape() as tape:
        tape.watch(variable := tf.constant(numbers))
        theirs = keras.losses.CTC()(labels, variable)
    assert loss.item() == pytest.approx(float(theirs), rel=1e-5)
    assert np.allclose(logits.grad, tape.gradient(theirs, variable), atol=1e-5)


def test_the_libraries_differ_as_the_table_of_the_lesson_says():
    logits, labels = torch.zeros(6, 1, 3), np.array([[1, 1, 1, 1]])  # needs seven steps
    assert ch7.ctc_loss(logits, torch.from_numpy(labels)).item() == np.inf
    by_keras = keras.losses.CTC()(labels, logits.permute(1, 0, 2).numpy())
    assert 100 < float(by_keras) < np.inf
    ours, theirs = torch.nn.BatchNorm2d(1), keras.layers.BatchNormalization()
    assert (ours.momentum, ours.eps) == (0.1, 1e-5)
    assert (theirs.momentum, theirs.epsilon) == (0.99, 1e-3)


def test_greedy_is_the_collapse_rule_of_lesson_3():
    paths = np.random.default_rng(4).choice([0, 0, 1, 1, 11, 36], (500, 9))
    logits = torch.eye(37)[torch.from_numpy(paths).T]
    assert ch7.greedy(logits) == [ch3.spell(ch3.collapse(path)) for path in paths]


def test_training_lowers_the_loss_is_repeatable_and_reads_each_picture_alone():
    data = ch7.CaptchaBatches(16, seed=3, draw=partial(GlyphBank(3, colors=2).draw, width=192))
    batches = [data[epoch, index] for epoch in range(3) for index in range(8)]

    def run():
        torch.manual_seed(1)
        model = ch7.CTCNet((8, 8, 8, 16), stride=4, tall=3)
        return model, list(ch7.train(model, batches, *ch7.recipe(model, 24, rate=0.1)))

    model, losses = run()
    assert len(losses) == 24 and np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert losses == run()[1]
    pictures = draw_wide(["AB12"] * 8, stream(3, "show", epoch=0, index=0))
    answers = ch7.read_pictures(model, pictures)
    assert answers == [ch7.read_pictures(model, picture[None])[0] for picture in pictures]


def test_the_recipe_moves_every_weight_as_the_one_of_lesson_4_does():
    """The same weights, gradients and steps: rates, momentum and decay are the same."""
    theirs = ch3.build_ctc(filters=(24, 4), convs=1, stride=4, norms="once")
    ours = ch7.CTCNet((24, 4), stride=4)
    ch4.compile_recipe(theirs, steps=30)
    optimizers, cycles = ch7.recipe(ours, steps=30)
    parameters, variables = list(ours.parameters()), theirs.trainable_variables

    def turned(x) -> torch.Tensor:
        """Return a kernel of Keras as PyTorch keeps it."""
        x = keras.ops.convert_to_numpy(x)
        return torch.tensor(x.transpose((3, 2, 0, 1)) if x.ndim == 4 else x.T)

    for parameter, variable in zip(parameters, variables, strict=True):
        parameter.data = turned(variable)
    start, rng = [parameter.detach().clone() for parameter in parameters], np.random.default_rng(2)
    for _ in range(30):
        gradients = [rng.normal(size=variable.shape).astype("float32") for variable in variables]
        theirs.optimizer.apply(gradients, variables)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = turned(gradient)
        for part in (*optimizers, *cycles):
            part.step()
    for parameter, variable, before in zip(parameters, variables, start, strict=True):
        apart = (parameter - turned(variable)).abs().mean()
        assert apart < 1e-3 * (parameter - before).abs().mean(), variable.path
