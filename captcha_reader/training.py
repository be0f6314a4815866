"""What long trainings need: reading with averaged weights, and going on after a stop."""

import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np


def settle_norms(model: keras.Model, pictures: np.ndarray) -> None:
    """Give batch normalisation the means and variances that `pictures` have with these weights."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0  # forget what was measured before
    model(pictures, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


class Average(keras.callbacks.Callback):
    """After each epoch, logs how the averaged weights read held-out captchas, and saves them.

    `X`, `y` are the captchas as a `CaptchaSequence` gives them, `texts` what they say, `decode`
    turns the network's outputs into texts, and `sample` are some pictures of training. The log gets
    val_loss, val_acc (the share of whole texts) and seconds; the network is in `path`.
    """

    def __init__(self, X, y, texts: list[str], decode: Callable, sample: np.ndarray, path: Path):
        super().__init__()
        self.X, self.y, self.texts, self.decode = X, y, texts, decode
        self.sample, self.path = sample, path

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        model, own = self.model, self.model.get_weights()
        model.optimizer.finalize_variable_values(model.trainable_variables)
        model.set_weights(model.get_weights())  # a copy, since JAX frees the arrays it trained
        settle_norms(model, self.sample)
        outputs = model.predict(self.X, batch_size=64, verbose=0)
        pairs = zip(self.decode(outputs), self.texts, strict=True)
        logs["val_loss"] = float(model.compute_loss(y=self.y, y_pred=outputs))
        logs["val_acc"] = np.mean([answer == text for answer, text in pairs])
        logs["seconds"] = time.perf_counter() - self.start
        bare = type(model).from_config(model.get_config())  # without the optimizer's memory
        bare.set_weights(model.get_weights())
        bare.save(self.path)
        model.set_weights(own)


class Resume(keras.callbacks.BackupAndRestore):
    """Saves the state after each epoch of `steps` steps, and goes on from it when fit begins.

    Keras writes the number of the epoch into a second file, which a power cut can leave half
    written. Here the optimizer's steps count, which are saved with the weights.
    """

    def __init__(self, folder: Path, steps: int):
        super().__init__(folder / "backup", double_checkpoint=True, delete_checkpoint=False)
        self.steps = steps

    def on_train_begin(self, logs=None):
        (Path(self.backup_dir) / "training_metadata.json").unlink(missing_ok=True)
        super().on_train_begin(logs)
        steps_made = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        self.model._initial_epoch = steps_made // self.steps
