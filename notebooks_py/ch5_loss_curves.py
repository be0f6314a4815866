# %% [markdown]
# # Read loss curves
#
# At the end of this half hour you can look at the log of a training and say whether it learns, whether
# it is done, and what to change next. You need [lesson 4](ch4_gpu_training.ipynb), which explains the
# recipe. Nothing is trained here: we read logs that `make train` and `make study` wrote.

# %%
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from captcha_reader.scores import share
from captcha_reader.weights import MODELS

# %% tags=["parameters", "active-ipynb"]
# SEED = 2019  # decides the luck of fifteen readers, further down

# %% [markdown]
# ## A log
#
# `CSVLogger` writes one row at the end of each epoch. This is the log of the finished network of lesson 3.

# %% tags=["active-ipynb"]
# log = pd.read_csv(MODELS / "ctc.csv")
# figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
# axes.plot(log.pictures / 1_000, log.val_loss)
# axes.set(title="Hours of training", xlabel="thousands of captchas")
# axes.set_ylabel("held-out loss (nats)")
# plt.show()
# print(f"{len(log)} rows, {log.pictures.max():,} captchas")
