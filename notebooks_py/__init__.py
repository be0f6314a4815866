"""The lessons as modules: a function is written where it is taught, and imported from there."""

import contextlib

with contextlib.suppress(ImportError):  # PyTorch for CUDA brings it; after TensorFlow it crashes
    import triton  # noqa: F401
