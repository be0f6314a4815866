"""Lesson 7: its table of defaults, and its recipe, which is that of lesson 4."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="lesson 7 needs PyTorch: make setup-torch")

import keras  # noqa: E402

from notebooks_py import ch3_ctc as ch3  # noqa: E402
from notebooks_py import ch4_gpu_training as ch4  # noqa: E402
from notebooks_py import ch7_ctc_pytorch as ch7  # noqa: E402

torch.set_num_threads(1)  # the networks here are tiny


def test_the_defaults_of_the_libraries_are_those_of_the_table():
    ours, theirs = torch.nn.BatchNorm2d(1), keras.layers.BatchNormalization()
    assert (ours.momentum, ours.eps) == (0.1, 1e-5)
    assert (theirs.momentum, theirs.epsilon) == (0.99, 1e-3)


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
