"""Test sets with names: the name decides every picture, and a fingerprint confirms it."""

import hashlib
from collections.abc import Iterator

import numpy as np

from captcha_reader.drawing import draw_captchas, draw_modern, draw_preview, draw_wide, stream
from captcha_reader.texts import encode, random_texts

BATCH = 100  # captchas are drawn in batches, each from a stream of its own
TEST_SETS = {  # captchas, and what draws them; the smaller sets are the beginning of the larger
    "classic-100": (100, draw_captchas),
    "classic-1k": (1_000, draw_captchas),
    "classic-10k": (10_000, draw_captchas),
    "classic-100k": (100_000, draw_captchas),
    "wide-1k": (1_000, draw_wide),
    "wide-10k": (10_000, draw_wide),
    "modern-1k": (1_000, draw_modern),
    "modern-10k": (10_000, draw_modern),
    "preview-1k": (1_000, draw_preview),
    "preview-10k": (10_000, draw_preview),
}
FINGERPRINTS = {
    "classic-100": "71884431e8de06111ba3d26d52ba7af8dcf15c67b00f91ad1fd8b54d59658fb8",
    "classic-1k": "621278a28c830a640f317e7bde21626b6a76ca01a0652036c43684e5350027dc",
    "classic-10k": "763b58b8532d93fed54323fa70da344d2ca9c5a83110f6c2b196f9732cd05957",
    "classic-100k": "ff09bdf2a7254b4caea6ced15a15ecfb487f784d553e25d3f9de94be9eb340be",
    "wide-1k": "e84a9d0abe9404ea6d5cd7e6b8a1c06c74bc4f306d1d1b32ee7246c308ab371d",
    "wide-10k": "0977d37f533fb0bae7ded2338ae8465ddf141e30f4dc660dcb69bf438637e56c",
    "modern-1k": "71b23059d72b4add8c829a730d88872870a2d8090988e79e7d2624e9a14a2b79",
    "modern-10k": "5cb38d5469413ba7c1a3a3b93ed4757c5e5fe47d59da78a917b66bd5fa0950e8",
    "preview-1k": "2c085185e91aa66c356abaae96d63776b41006407c741758c8975cdc0942e3bd",
    "preview-10k": "178fd633c99179e7fffc919ce86924ed4f999250c9ea32b8a74013e84f5647db",
}


def fingerprint(*arrays: np.ndarray) -> str:
    """Return the SHA-256, in hexadecimal, over dtype, shape and bytes of the arrays in order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def draw_test_set(test_set: str) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Draw a named test set: batches of 100 uint8 pictures (100, 64, width, 3) and their texts.

    The captchas come from the stream "test", from which no training draws.

    Raises:
        ValueError: no test set has this name.
        RuntimeError: at the end, if these are not the pictures and texts of its fingerprint.
    """
    if test_set not in TEST_SETS:
        raise ValueError(f"no test set {test_set!r}: there are {', '.join(TEST_SETS)}")
    return _batches(test_set)


def _batches(test_set: str) -> Iterator[tuple[np.ndarray, list[str]]]:
    (n, draw), digest = TEST_SETS[test_set], hashlib.sha256()
    for index in range(n // BATCH):
        rng = stream(0, "test", epoch=0, index=index)
        texts = random_texts(rng, BATCH)
        pictures = draw(texts, rng)
        digest.update(fingerprint(pictures, encode(texts)).encode())
        yield pictures, texts
    if digest.hexdigest() != FINGERPRINTS[test_set]:
        raise RuntimeError(
            f"these are not the captchas of {test_set}: their SHA-256 is {digest.hexdigest()}, "
            f"expected {FINGERPRINTS[test_set]}; install the pinned packages (requirements.lock)"
        )
