"""What long trainings need: averaged weights, going on after a stop, several devices."""

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from operator import itemgetter
from pathlib import Path

import h5py
import keras
import numpy as np


def settle_norms(model: keras.Model, batches: Sequence[np.ndarray]) -> None:
    """Change the means and variances of batch normalisation to those that `batches` have.

    These are inputs of the network: float32 pictures (n, 64, width, 3) in [0, 1].
    """
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for seen, batch in enumerate(batches):
        for layer in norms:
            layer.momentum = seen / (seen + 1)  # all batches count alike, and nothing before them
        model(batch, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


def every_device() -> contextlib.AbstractContextManager:
    """Return a context in which to build for all GPUs, or for all CPU devices if there is none."""
    devices, backend = keras.distribution.list_devices(), keras.backend.backend()
    if len(devices) > 1 and backend == "jax":
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    elif len(devices) > 1 and backend == "tensorflow":
        import tensorflow as tf

        return tf.distribute.MirroredStrategy(devices).scope()
    return contextlib.nullcontext()


class Average(keras.callbacks.Callback):
    """After each epoch, logs how the averaged weights read held-out captchas, and saves them.

    `held_out` has batches of pictures, uint8 (n, 64, width, 3), their labels as for `fit` and their
    texts: those of "classic", by which the log gets val_loss and val_acc (the share of whole
    texts), and maybe those of other kinds, by which it gets val_KIND. `decode` turns the network's
    outputs into texts, and `sample` has the pictures of some batches of training, float32 in
    [0, 1]. The optimizer needs `use_ema=True`. The network is saved to `path`.
    """

    def __init__(self, held_out: dict, decode: Callable, sample: Sequence, path: Path):
        super().__init__()
        self.held_out, self.decode, self.sample, self.path = held_out, decode, sample, path

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        model, own = self.model, self.model.get_weights()
        model.optimizer.finalize_variable_values(model.trainable_variables)
        model.set_weights(model.get_weights())  # a copy, since JAX frees the arrays it trained
        settle_norms(model, self.sample)
        logs |= self.score(model)
        logs["seconds"] = time.perf_counter() - self.start
        bare = type(model).from_config(model.get_config())  # without the optimizer's memory
        bare.set_weights(model.get_weights())
        bare.save(self.path)
        model.set_weights(own)

    def score(self, model: keras.Model) -> dict[str, float]:
        """Read the held-out captchas; return what the log gets."""
        logs = {}
        for kind, batches in self.held_out.items():
            losses, right = [], []
            for pictures, y, texts in batches:
                outputs = model.predict_on_batch(pictures.astype("float32") / 255)
                # TensorFlow lets each of several devices read all of them.
                outputs = keras.tree.map_structure(itemgetter(slice(len(texts))), outputs)
                if kind == "classic":
                    losses.append(float(model.compute_loss(y=y, y_pred=outputs)))
                right += [a == b for a, b in zip(self.decode(outputs), texts, strict=True)]
            if kind == "classic":
                logs["val_loss"] = np.mean(losses)
            logs["val_acc" if kind == "classic" else f"val_{kind}"] = np.mean(right)
        return logs


def check_backup(folder: Path) -> None:
    """Raise a ValueError if no saved state can be read; delete one torn in the first epoch."""
    names = ("latest.weights.h5", "latest.weights.h5.bkp")
    states = [folder / name for name in names if (folder / name).exists()]
    for state in states:
        with contextlib.suppress(OSError), h5py.File(state):
            return
    if len(states) == 2:
        raise ValueError(f"the backup in {folder} is damaged: start anew with OUT=another-folder")
    for state in states:
        state.unlink()


class Resume(keras.callbacks.BackupAndRestore):
    """Saves the state after each epoch of `steps` steps, and goes on from it when fit begins.

    Keras writes into the file from which it goes on: Ctrl-C in that moment leaves half a state, and
    without the optimizer's half it is loaded all the same. Here a draft takes the file's place when
    it is whole. Which epoch comes next follows from the optimizer's steps.
    """

    def __init__(self, folder: Path, steps: int):
        check_backup(folder / "backup")
        super().__init__(folder / "backup", double_checkpoint=True, delete_checkpoint=False)
        self.state, self.steps = folder / "backup" / "latest.weights.h5", steps

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        steps_made = int(keras.ops.convert_to_numpy(self.model.optimizer.iterations))
        self.model._initial_epoch = -(-steps_made // self.steps)  # the last epoch may be shorter

    def on_epoch_end(self, epoch, logs=None):
        self.state.parent.mkdir(exist_ok=True)
        self.model.save_weights(draft := self.state.with_name("draft.weights.h5"))
        if self.state.exists():
            shutil.copy(self.state, f"{self.state}.bkp")  # a power cut may still tear the new one
        draft.replace(self.state)
