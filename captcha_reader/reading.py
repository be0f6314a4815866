"""Read captchas from pictures of any kind with the finished network of models/ctc.

The network knows one style: up to six digits and capitals with dots and an arc, as the captcha
package draws them, at any size. It may have an answer to other pictures as well. A low confidence
is a sign that the answer means nothing.

ONNX Runtime reads models/ctc.onnx, without importing TensorFlow. Without that file, or without ONNX
Runtime, Keras does. Both give the same texts.
"""

import functools
import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from captcha_reader.texts import ALPHABET, BLANK, HEIGHT
from captcha_reader.weights import MODELS, finished, sha256

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
MOST_BYTES, MOST_PIXELS = 25_000_000, 25_000_000  # a phone's photo has half of that
BATCH = 100  # pictures for the network at a time
BEST = 3  # alternatives for each character

Picture = str | os.PathLike | bytes | Image.Image | np.ndarray
Network = Callable[[np.ndarray], np.ndarray]


class UnreadablePicture(ValueError):
    """A picture can't be read; the message names the file and says what is wrong with it."""


@dataclass(frozen=True)
class Reading:
    """What the network reads in a picture.

    `confidence` is the probability in [0, 1] that it gives to `text`. `alternatives` has for each
    character of the text the three likeliest ones in its place, likeliest first, and how probable
    each is, in [0, 1], if the other characters are right.
    """

    text: str
    confidence: float
    alternatives: tuple[dict[str, float], ...]


def read_captcha(picture: Picture) -> Reading:
    """Read one captcha: a path, the bytes of a file, a PIL image, or an array.

    An array is uint8, (height, width) for grey, or with a last axis of 1, 3 or 4 for grey, RGB and
    RGBA. The picture may have any size and mode: it is turned as its EXIF data say, laid on white
    where it is transparent, and scaled to a height of 64 pixels.

    Raises:
        UnreadablePicture: there is no such file, or it holds no picture, or a damaged, an animated
            or an absurdly large one.
        captcha_reader.weights.Missing: the weights are not there.
        ValueError: the weights are damaged.
    """
    return read_captchas([picture])[0]


def read_captchas(pictures: Sequence[Picture]) -> list[Reading]:
    """Read many captchas as `read_captcha` reads one; the first unreadable one raises its error."""
    readings = {}
    for start in range(0, len(pictures), BATCH):
        by_width = {}  # the network takes pictures of one width at a time
        for place, picture in enumerate(pictures[start : start + BATCH], start):
            pixels = to_pixels(picture)
            by_width.setdefault(pixels.shape[1], []).append((place, pixels))
        for pairs in by_width.values():
            answers = network()(np.stack([pixels for _, pixels in pairs]))
            readings |= {place: decode(x) for (place, _), x in zip(pairs, answers, strict=True)}
    return [readings[place] for place in range(len(pictures))]


# Pictures


def network_width(width: int, height: int) -> int:
    """Return how wide the network gets a picture: 64 high, in eights, from 64 to 320 pixels."""
    return min(320, max(64, 8 * ((16 * width + height) // (2 * height))))


def scale(pictures: np.ndarray, width: int | None = None) -> np.ndarray:
    """Scale uint8 RGB pictures (n, height, width, 3) for the network: (n, 64, `width`, 3).

    Their shape decides the width (`network_width`), unless it is given: a network with four heads
    has one width for all. The filter is Pillow's BILINEAR, which takes all pixels into account.
    """
    height = pictures.shape[1]
    width = width or network_width(pictures.shape[2], height)
    if pictures.shape[1:3] == (HEIGHT, width):
        return pictures
    return np.stack([np.asarray(_resize(Image.fromarray(picture), width)) for picture in pictures])


def _resize(image: Image.Image, width: int) -> Image.Image:
    return image.resize((width, HEIGHT), Image.Resampling.BILINEAR)


def to_pixels(picture: Picture, width: int | None = None) -> np.ndarray:
    """Bring a picture to what the network wants: uint8 RGB, (64, width, 3).

    The width follows from the picture's (`network_width`), unless it is given.

    Raises:
        UnreadablePicture: as `read_captcha`.
    """
    is_path = isinstance(picture, str | os.PathLike)
    name = os.fsdecode(picture) if is_path else type(picture).__name__
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow's, about what it can live with
            image = ImageOps.exif_transpose(_open(_content(picture) if is_path else picture))
            return np.asarray(_resize(_to_rgb(image), width or network_width(*image.size)))
    except UnreadablePicture as error:
        raise UnreadablePicture(f"{name}: {error}") from None
    except Exception as error:  # Pillow raises all kinds, SyntaxError and MemoryError among them
        why = str(error) or type(error).__name__
        raise UnreadablePicture(f"{name}: the picture is damaged: {why}") from error


def _content(path: str | os.PathLike) -> bytes:
    try:
        path = Path(os.fsdecode(path))
        size = path.stat().st_size
        if not path.is_file():
            raise UnreadablePicture("this is a folder or a device, not a file")
        if size > MOST_BYTES:
            raise UnreadablePicture(f"{size:,} bytes; at most {MOST_BYTES:,} are read")
        return path.read_bytes()
    except FileNotFoundError:
        raise UnreadablePicture("there is no such file") from None
    except OSError as error:
        raise UnreadablePicture(f"the file can't be opened: {error.strerror}") from error


def _open(picture: bytes | Image.Image | np.ndarray) -> Image.Image:
    """Open a picture without decoding its pixels, and refuse what is not one of a sane size."""
    if isinstance(picture, np.ndarray):
        channels = picture.shape[2:] or (1,)
        if picture.dtype != np.uint8 or picture.ndim < 2 or channels not in ((1,), (3,), (4,)):
            raise UnreadablePicture(
                f"{picture.dtype} of shape {picture.shape}; an array has to be uint8, (height, "
                "width) or with a last axis of 1, 3 or 4"
            )
        image = Image.fromarray(picture[:, :, 0] if picture.shape[2:] == (1,) else picture)
    elif isinstance(picture, Image.Image):
        image = picture
    elif isinstance(picture, bytes):
        if not picture:
            raise UnreadablePicture("there is nothing in it")
        try:
            image = Image.open(io.BytesIO(picture), formats=FORMATS)
        except UnidentifiedImageError:
            raise UnreadablePicture(f"this is no picture ({', '.join(FORMATS)})") from None
        except Image.DecompressionBombError as error:
            raise UnreadablePicture(f"too large: {error}") from None
    else:
        raise UnreadablePicture("give a path, bytes, a PIL image or an array")
    width, height = image.size
    if not 0 < width * height <= MOST_PIXELS:
        raise UnreadablePicture(f"{width:,} x {height:,} pixels; 1 to {MOST_PIXELS:,} are read")
    # The second picture in the JPEG of a phone (MPO) is a smaller one for its screen.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise UnreadablePicture("this is animated or has several pages; give one picture")
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode[0] in "IF":  # 16 or 32 bits, or fractions: the largest value tells what is white
        values = np.nan_to_num(np.asarray(image, np.float32))
        white = next((top for top in (1, 255, 65_535) if values.max() <= top), values.max())
        image = Image.fromarray((255 * np.clip(values / white, 0, 1)).round().astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


# The network


@functools.cache
def network() -> Network:
    """Return what reads: ONNX Runtime where it can, otherwise Keras."""
    return onnx_network() or keras_network()


def onnx_network(folder: Path = MODELS) -> Network | None:
    """Return `folder`/ctc.onnx as a function; None without it, or without ONNX Runtime.

    The function turns uint8 pictures (n, 64, width, 3) into the probabilities of the answers of
    each column, float32 (n, width / 8, 37). A damaged file, or one that was not made from
    `folder`/ctc.keras, is not used: one line on stderr says so.
    """
    path, source = folder / "ctc.onnx", folder / "ctc.keras"
    try:
        import onnxruntime
    except ImportError:
        return None
    if not path.exists():
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads = 1  # a captcha is so little work that sharing it costs more
    try:
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        made_from = session.get_modelmeta().custom_metadata_map["sha256"]
    except Exception:  # its errors have no class in common
        made_from = None
    if not made_from or (source.exists() and made_from != sha256(source)):
        reason = f"was not made from this {source.name}" if made_from else "is damaged"
        print(f"{path} {reason}, so Keras reads; `make export` makes it anew", file=sys.stderr)
        return None
    return lambda pictures: session.run(["probabilities"], {"pictures": pictures})[0]


def keras_network(folder: Path = MODELS) -> Network:
    """Return `folder`/ctc.keras as a function like that of `onnx_network`.

    Raises:
        Missing, ValueError: as `captcha_reader.weights.finished`.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    model, _ = finished("ctc", folder)

    def probabilities(pictures: np.ndarray) -> np.ndarray:
        logits = model.predict_on_batch(pictures.astype("float32") / 255)
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)

    return probabilities


# From answers to a text


def decode(columns: np.ndarray) -> Reading:
    """Read the text off the probabilities of each column, (steps, len(ALPHABET) + 1).

    The likeliest answers, without repetitions and blanks, are the text (lesson 3: greedy decoding).
    """
    path = columns.argmax(axis=-1)
    label = path[(path != BLANK) & (path != np.append(BLANK, path[:-1]))]
    (confidence,) = chances(columns, label[None])
    length, characters = len(label), len(ALPHABET)
    others = np.tile(label, (length, characters, 1))  # at each place every character
    others[range(length), :, range(length)] = np.arange(characters) + 1
    each = chances(columns, others.reshape(-1, length)) if length else np.empty(0)
    each = each.reshape(length, characters)
    each /= each.sum(axis=1, keepdims=True)
    best = np.argsort(-each, axis=1, kind="stable")[:, :BEST]
    alternatives = tuple(
        {ALPHABET[i]: round(float(row[i]), 6) for i in order}
        for row, order in zip(each, best, strict=True)
    )
    text = "".join(ALPHABET[answer - 1] for answer in label)
    return Reading(text, min(round(float(confidence), 6), 1.0), alternatives)


def chances(columns: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the probability of each of n labels: exp(-CTC loss), float64 (n,).

    `columns` has the probabilities of each column, (steps, classes), `labels` (n, length) classes
    without blanks. This is the lattice of lesson 3 for many labels at a time.
    """
    columns = columns.astype(np.float64)
    states = np.full((len(labels), 2 * labels.shape[1] + 1), BLANK)
    states[:, 1::2] = labels
    skips = np.zeros(states.shape)  # 1 where a path may leave out the blank before a state
    skips[:, 3::2] = labels[:, 1:] != labels[:, :-1]
    sums = np.zeros(states.shape)
    sums[:, :2] = columns[0, states[:, :2]]
    for column in columns[1:]:
        reached = sums.copy()
        reached[:, 1:] += sums[:, :-1]
        reached[:, 2:] += sums[:, :-2] * skips[:, 2:]
        sums = reached * column[states]
    return sums[:, -2:].sum(axis=1)
