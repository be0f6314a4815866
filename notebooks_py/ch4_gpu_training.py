# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     notebook_metadata_filter: jupytext,kernelspec,-all
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Train on a GPU, and keep it busy
#
# ## What you'll do
#
# - ask which device your network runs on, and share a GPU's memory politely
# - measure how fast captchas reach the network with no worker, two workers and four
#
# ## What you'll learn
#
# - what a GPU speeds up, and what it leaves exactly as slow as before
# - how to find out whether a network is waiting for its data
#
# ## What you'll need
#
# - [Lesson 1](ch1_captcha_preview.ipynb) and [lesson 2](ch2_cnn.ipynb); a GPU is welcome and not
#   needed: on a CPU every cell runs as well
#
# ---

# %%
import os
import time

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from notebooks_py.ch1_captcha_preview import CaptchaSequence


# %% [markdown]
# Two numbers: the seed, and how many batches we time.

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # decides the pictures and the first weights
# STEPS = 16  # batches in each measurement

# %% [markdown]
# ## Which device?
#
# Keras places a network on the first GPU if the backend can see one, and on the CPU otherwise. No
# line of lesson 2 has to change. So the question is only whether a GPU is *seen*: a driver that is
# too old, or a TensorFlow without CUDA libraries, silently leaves you on the CPU.

# %%
def device() -> str:
    """Return the device that Keras computes on, such as "GPU (gpu:0, one of 2)" or "CPU"."""
    gpus = keras.distribution.list_devices("gpu")
    if not gpus:
        return "CPU"
    return f"GPU ({gpus[0]}{f', one of {len(gpus)}' if len(gpus) > 1 else ''})"


# %% [markdown]
# These lessons print nothing that depends on your machine, because their printed outputs are
# compared with ours, word by word. What depends on the machine goes into pictures. This one is
# yours:

# %% tags=["active-ipynb"]
# import matplotlib.pyplot as plt
#
# figure, axes = plt.subplots(figsize=(7, 1.2), layout="constrained")
# axes.text(0.5, 0.5, f"{device()}, backend {keras.backend.backend()}", ha="center", fontsize=15)
# axes.set_title("The device that this notebook computes on")
# axes.axis("off")
# plt.show()
# print("Keras sees a CPU or a GPU:", device().split()[0] in ("CPU", "GPU"))

# %% [markdown]
# If it says CPU although there is a GPU in your machine, the README tells how to install TensorFlow
# with CUDA.
#
# ## Share the memory
#
# TensorFlow takes *all* memory of a GPU at its first operation, whether it needs it or not. Then a
# second notebook on the same GPU fails. The original tutorial asks TensorFlow to take memory step
# by step instead; this is the same trick with today's functions. It has to come before the first
# operation on the GPU.

# %%
def grow_memory() -> str:
    """Ask the backend to take GPU memory as it needs it; return a sentence about what was done.

    Raises:
        RuntimeError: TensorFlow has used the GPU already, so it is too late.
    """
    backend = keras.backend.backend()
    if backend == "jax":
        if os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "").lower() == "false":
            return "JAX takes memory as it needs it: XLA_PYTHON_CLIENT_PREALLOCATE is false"
        return "JAX decides at its start: set XLA_PYTHON_CLIENT_PREALLOCATE=false before that"
    if backend != "tensorflow":
        return f"{backend} takes GPU memory as it needs it: nothing to do"
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError as error:
            raise RuntimeError(
                f"{gpu.name} is in use already: restart the kernel, and call grow_memory() first"
            ) from error
    return f"TensorFlow takes memory as it needs it on {len(gpus)} GPUs"


# %% [markdown]
# We call it here for the sake of the example; in a notebook of your own, do so right after the
# imports.

# %% tags=["active-ipynb"]
# sentence = grow_memory()
# assert "memory" in sentence or "JAX decides" in sentence
# print("asked in time:", bool(sentence))

# %% [markdown]
# On a CPU this does nothing, and says so in `sentence`.
#
# ## Who waits for whom?
#
# A training step has two halves. Somebody draws the pictures: that is work for CPU cores, whatever
# card is in the machine. Then the network computes: that is what a GPU does many times faster. If
# the pictures come too slowly, the fastest GPU stands idle; in the original tutorial, nine tenths
# of each step on a GPU were waiting for pictures.
#
# Workers help, because they draw the next batches while the network computes. To see how much, we
# time an epoch of the same batches with different numbers of workers. The network is tiny, so it
# hardly ever makes anybody wait: what is left is the feeding.

# %%
def feeding_speed(data: CaptchaSequence) -> float:
    """Return how many pictures a second reach a tiny network in one epoch of `data`."""
    inputs = keras.Input((data.height, data.width, 3))
    features = keras.layers.GlobalAveragePooling2D()(inputs)
    classes = len(data.alphabet)
    heads = [keras.layers.Dense(classes, "softmax")(features) for _ in range(data.length)]
    model = keras.Model(inputs, heads)
    model.compile("sgd", loss="categorical_crossentropy")
    for _ in range(2):  # the first time Keras compiles, and that is not feeding
        start = time.perf_counter()
        model.fit(data, shuffle=False, verbose=0)
    return data.batch_size * len(data) / (time.perf_counter() - start)

# %% [markdown]
# Three epochs, three bars:

# %% tags=["active-ipynb"]
# speeds = {
#     workers: feeding_speed(CaptchaSequence(32, STEPS, SEED, workers=workers))
#     for workers in (0, 2, 4)
# }
# figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
# axes.bar([str(workers) for workers in speeds], speeds.values())
# axes.set(xlabel="workers (threads)", ylabel="pictures a second")
# axes.set_title(f"Feeding by threads: {STEPS} batches of 32, {os.cpu_count()} CPU cores")
# plt.show()
# print("measured with", ", ".join(map(str, speeds)), "workers")
# assert all(speed > 0 for speed in speeds.values())

# %% [markdown]
# The bars are your machine's. With no worker, a single thread draws; with two or four, several do.
# But do not expect four times the speed from four threads: Python lets one thread at a time run
# Python code, and only the parts of Pillow that work outside Python overlap. More threads than
# cores bring nothing at all.
#
# Does it matter who draws? For the speed, yes; for the data, no:

# %% tags=["active-ipynb"]
# import numpy as np
#
# alone, helped = (CaptchaSequence(32, 2, SEED, workers=workers) for workers in (0, 4))
# same = all(np.array_equal(alone[index][0], helped[index][0]) for index in range(2))
# print("the same pictures with any number of workers:", same)
# assert same

# %% [markdown]
# ## What a GPU would change
#
# If you have read this far on a CPU, you have missed nothing: the bars above would look the same on
# a machine with a GPU and the same processor. What changes is the network's half of the step. On a
# CPU the network of lesson 2 takes far longer to compute than its pictures take to be drawn, so
# feeding does not matter. On a GPU it is the other way round. There are two ways out: draw the
# pictures once and keep them, or draw them on the GPU itself.
#
# ---
#
# ## What you learned
#
# - Keras uses a GPU without being asked, if the backend sees one; look before you train for hours.
# - A GPU speeds up the network and nothing else: somebody still has to draw the pictures.
# - Workers draw ahead. They change the speed, never the data.
#
# ## On your own
#
# 1. Time `workers=1`. *Expected: about the same as no worker, because Keras uses the training
#    thread for both.*
# 2. Replace the tiny network by `build_cnn()` of lesson 2 and compare zero with four workers again.
#    *Expected: on a CPU the bars come out nearly equal, since the network takes most of the time;
#    on a GPU they differ more than above.*
# 3. Use `use_multiprocessing=True`. *Expected: slower here. The processes are started anew for
#    every epoch, which only pays if epochs are long.*
#
# ## Further reading
#
# - [Limiting GPU memory growth](https://www.tensorflow.org/guide/gpu#limiting_gpu_memory_growth):
#   TensorFlow's own page on the trick, with its variants.
# - [What the GIL is](https://docs.python.org/3/glossary.html#term-global-interpreter-lock): why
#   four Python threads are not four times as fast.
# - [keras.utils.PyDataset](https://keras.io/api/utils/python_utils/#pydataset-class): what
#   `workers` and `max_queue_size` mean exactly.
