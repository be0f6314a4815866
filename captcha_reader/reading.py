"""Read captchas from pictures of any kind, with the finished network or with one of your own.

The finished network knows one style: up to six digits and capitals with dots and an arc, as the
captcha package draws them, at any size. It may have an answer to other pictures as well. A low
confidence is a sign that the answer means nothing.

ONNX Runtime reads models/ctc.onnx, or another file of `make export`, without TensorFlow.
"""

import functools
import io
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps, UnidentifiedImageError

from captcha_reader.texts import BLANK, HEIGHT
from captcha_reader.weights import find, sha256

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
BATCH = 100  # pictures for the network at a time
BEST = 3  # alternatives for each character

Picture = str | os.PathLike | bytes | Image.Image | np.ndarray


class UnreadablePicture(ValueError):
    """A picture can't be read; the message names the file and says what is wrong with it."""


@dataclass(frozen=True)
class Network:
    """A network to read with.

    `probabilities` turns uint8 RGB pictures (n, 64, width, 3) into the probabilities of the answers
    of each column, float32 (n, steps, len(alphabet) + 1); class 0 is the blank. `width` is in
    pixels, None for a network that takes pictures of any.
    """

    probabilities: Callable[[np.ndarray], np.ndarray]
    alphabet: str
    width: int | None = None


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


def read_captcha(picture: Picture, network: Network | None = None) -> Reading:
    """Read one captcha: a path, the bytes of a file, a PIL image, or an array.

    An array is uint8, (height, width) for grey, or with a last axis of 1, 3 or 4 for grey, RGB and
    RGBA. The picture may have any size and mode: it is turned as its EXIF data say, laid on white
    where it is transparent, and scaled to a height of 64 pixels. `network` is one of your own, from
    `load_network`.

    Raises:
        UnreadablePicture: there is no such file, or it holds no picture, or a damaged, an animated
            or an absurdly large one.
        captcha_reader.weights.Missing, ValueError: as `load_network`, of the finished network.
    """
    return read_captchas([picture], network)[0]


def read_captchas(pictures: Sequence[Picture], network: Network | None = None) -> list[Reading]:
    """Read many captchas as `read_captcha` reads one; the first unreadable one raises its error."""
    network = network or finished_network()
    readings = {}
    for start in range(0, len(pictures), BATCH):
        by_width = {}  # the network takes pictures of one width at a time
        for place, picture in enumerate(pictures[start : start + BATCH], start):
            pixels = to_pixels(picture, network.width)
            by_width.setdefault(pixels.shape[1], []).append((place, pixels))
        for pairs in by_width.values():
            answers = network.probabilities(np.stack([pixels for _, pixels in pairs]))
            for (place, _), columns in zip(pairs, answers, strict=True):
                readings[place] = to_reading(columns, network.alphabet)
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
            content = Path(name).read_bytes() if is_path else picture
            image = ImageOps.exif_transpose(_open(content))
            return np.asarray(_resize(_to_rgb(image), width or network_width(*image.size)))
    except UnidentifiedImageError:
        why = f"this is no picture ({', '.join(FORMATS)})"
    except UnreadablePicture as error:
        why = str(error)
    except Exception as error:  # Pillow raises all kinds, SyntaxError and MemoryError among them
        damage = f"the picture is damaged: {str(error) or type(error).__name__}"
        why = getattr(error, "strerror", None) or damage  # such as "No such file or directory"
    raise UnreadablePicture(f"{name}: {why}")


def _open(picture: bytes | Image.Image | np.ndarray) -> Image.Image:
    """Open a picture without decoding its pixels."""
    if isinstance(picture, bytes):
        picture = Image.open(io.BytesIO(picture), formats=FORMATS)
    elif isinstance(picture, np.ndarray):
        channels = picture.shape[2:] or (1,)
        if picture.dtype != np.uint8 or picture.ndim < 2 or channels not in ((1,), (3,), (4,)):
            raise UnreadablePicture(
                f"{picture.dtype} of shape {picture.shape}; an array has to be uint8, (height, "
                "width) or with a last axis of 1, 3 or 4"
            )
        picture = Image.fromarray(picture[:, :, 0] if picture.shape[2:] == (1,) else picture)
    elif not isinstance(picture, Image.Image):
        raise UnreadablePicture("give a path, bytes, a PIL image or an array")
    # The second picture in the JPEG of a phone (MPO) is a smaller one for its screen.
    if getattr(picture, "is_animated", False) and picture.format != "MPO":
        raise UnreadablePicture("this is animated or has several pages; give one picture")
    return picture


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
def finished_network() -> Network:
    """Return the finished network, models/ctc.onnx."""
    return load_network(find("ctc.onnx"))


def load_network(path: str | os.PathLike) -> Network:
    """Load a network from an .onnx file that `make export` wrote, with its alphabet.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an .onnx file of `make export`, or not made from the .keras file
            beside it.
    """
    path = Path(path)
    source = path.with_suffix(".keras")
    if path.suffix != ".onnx":
        raise ValueError(
            f"{path} is no .onnx file; `make export MODEL={source}` writes one from a .keras file"
        )
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; `make export` writes it from {source}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads = 1  # a captcha is so little work that sharing it costs more
    try:
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map
        alphabet, made_from = metadata["alphabet"], metadata["sha256"]
    except Exception as error:  # ONNX Runtime's errors have no class in common
        raise ValueError(f"{path} is damaged, or not from `make export`: {error!r}") from error
    if source.exists() and made_from != sha256(source):
        raise ValueError(f"{path} was not made from the {source.name} beside it; "
                         f"`make export MODEL={source}` makes it anew")  # fmt: skip
    width = session.get_inputs()[0].shape[2]
    return Network(
        lambda pictures: session.run(["probabilities"], {"pictures": pictures})[0],
        alphabet,
        width if isinstance(width, int) else None,  # a name stands for any width
    )


# From answers to a text


def to_reading(columns: np.ndarray, alphabet: str) -> Reading:
    """Read the text off the probabilities of each column, (steps, len(alphabet) + 1).

    The likeliest answers, without repetitions and blanks, are the text (lesson 3: greedy decoding).
    """
    path = columns.argmax(axis=-1)
    label = path[(path != BLANK) & (path != np.append(BLANK, path[:-1]))]
    (confidence,) = chances(columns, label[None])
    length, characters = len(label), len(alphabet)
    others = np.tile(label, (length, characters, 1))  # at each place every character
    others[range(length), :, range(length)] = np.arange(characters) + 1
    each = chances(columns, others.reshape(-1, length)) if length else np.empty(0)
    each = each.reshape(length, characters)
    each /= each.sum(axis=1, keepdims=True)
    best = np.argsort(-each, axis=1, kind="stable")[:, :BEST]
    alternatives = tuple(
        {alphabet[i]: round(float(row[i]), 6) for i in order}
        for row, order in zip(each, best, strict=True)
    )
    text = "".join(alphabet[answer - 1] for answer in label)
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
