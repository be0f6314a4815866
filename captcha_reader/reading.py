"""Read captchas from pictures of any kind, with the finished network or with one of your own.

The finished network knows one style: up to six digits and capitals with dots and an arc, as the
captcha package draws them, at any size. It may have an answer to other pictures as well. A low
confidence is a sign that the answer means nothing.

From a picture to a text, step by step; the page of `make demo` does the same in JavaScript:

1. What is transparent is laid on a ground (`on_ground`).
2. A margin of another colour than the paper is cut off (`cut_margin`).
3. The picture is scaled: 64 pixels high, and as wide as its shape says (`network_width`).
4. If it was as grainy as a JPEG (`is_grainy`), and is not made smaller, it is smoothed.
5. The network answers for each column of 8 pixels, and the answers become a text (`to_reading`).
6. If the picture is light on dark, or nothing is found, its inverse is read, too (`better`).

ONNX Runtime reads models/ctc.onnx, or another file of `make export`, without TensorFlow.
"""

import functools
import io
import json
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnxruntime
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

from captcha_reader.texts import BLANK, HEIGHT
from captcha_reader.weights import check_weights, described, find, read_results, sha256

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
BEST = 3  # alternatives for each character
BEAM = 10  # beginnings of a text that are kept for each length
CHANNELS = (), (1,), (3,), (4,)  # what may follow the height and width of an array
LIKELY = 5  # characters of a column by which a beginning may grow
SMOOTH = ImageFilter.Kernel((3, 3), (1, 2, 1, 2, 4, 2, 1, 2, 1))  # a mean; the edge stays
PROPERTY = "captcha_reader"  # of an ONNX file: a network's description as JSON

Picture = str | os.PathLike | bytes | BinaryIO | Image.Image | np.ndarray


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

    `confidence` is the probability in [0, 1] that it gives to `text`, or None if it finds no text.
    `alternatives` has for each character of the text at most three that are likeliest in its place
    (fewer if `alphabet` leaves fewer), likeliest first, and how probable each is, in [0, 1], if the
    other characters are right.
    """

    text: str
    confidence: float | None
    alternatives: tuple[dict[str, float], ...]


def read_captcha(
    picture: Picture,
    length: int | None = None,
    alphabet: str | None = None,
    model: str | os.PathLike | Network | None = None,
) -> Reading:
    """Read one captcha: a path, a file, the bytes of one, a PIL image, or an array.

    An array is uint8, (height, width) for grey, or with a last axis of 1, 3 or 4 for grey, RGB and
    RGBA. The picture may have any size and mode: it is turned as its EXIF data say, and then goes
    through the steps at the top of this module.

    If you know how many characters there are, say so by `length`; if only some occur, as in
    "0123456789", by `alphabet`. Then the text is the likeliest of those, and the confidence is its
    share among them. `model` is a network of your own, an .onnx file of `make export`.

    Raises:
        UnreadablePicture: there is no such file, or it holds no picture, or a damaged, an animated
            or an absurdly large one.
        ValueError: `length` is less than 1, or the network doesn't know a character of `alphabet`.
        FileNotFoundError, ValueError: as `load_network`, of `model` or of the finished network.
    """
    return read_captchas([picture], length, alphabet, model)[0]


def read_captchas(
    pictures: Iterable[Picture],
    length: int | None = None,
    alphabet: str | None = None,
    model: str | os.PathLike | Network | None = None,
    on_error: str = "raise",
) -> list[Reading | UnreadablePicture]:
    """Read many captchas as `read_captcha` reads one.

    The first picture that can't be read raises its error; with `on_error="return"` the error takes
    the place of its reading, and the others are read.
    """
    network = model if isinstance(model, Network) else load_network(model)
    if length is not None and length < 1:
        raise ValueError(f"length={length}: a text has at least 1 character")
    if strange := sorted(set(alphabet or "") - set(network.alphabet)):
        raise ValueError(f"alphabet={alphabet!r}: the network does not know "
                         f"{', '.join(map(repr, strange))}, but {network.alphabet!r}")  # fmt: skip
    if on_error not in ("raise", "return"):
        raise ValueError(f"on_error={on_error!r}: it is 'raise' or 'return'")
    one = isinstance(pictures, str | bytes | os.PathLike | Image.Image) or hasattr(pictures, "read")
    if one or isinstance(pictures, np.ndarray) and pictures.shape[2:] in CHANNELS:
        pictures = [pictures]
    results = []
    for picture in pictures:
        try:
            pixels = to_pixels(picture, network.width)
        except UnreadablePicture as error:
            if on_error != "return":
                raise
            results.append(error)
        else:
            results.append(_read(pixels, network, length, alphabet))
    return results


def _read(
    pixels: np.ndarray, network: Network, length: int | None, alphabet: str | None
) -> Reading:
    """Read a picture; if it is light on dark, or nothing is found, read its inverse, too."""

    def read(pixels: np.ndarray) -> Reading:
        (columns,) = network.probabilities(pixels[None])
        if not np.isfinite(columns).all():
            raise ValueError("the network answers with numbers that are no probabilities: "
                             "its file is damaged")  # fmt: skip
        return to_reading(columns, network.alphabet, length, alphabet)

    direct, dark = read(pixels), light_on_dark(pixels)
    if direct.text and not dark:
        return direct
    inverse = read(255 - pixels)
    return better(inverse, direct) if dark else better(direct, inverse)


def better(first: Reading, second: Reading) -> Reading:
    """Return the better of two readings of a picture; `first` is the usual one.

    Of two texts, the likelier one is better. If only `second` has a text, that is better if its
    confidence is above 0.5.
    """
    least = 0.5 if first.confidence is None else first.confidence
    return second if (second.confidence or 0) > least else first


# Pictures


def network_width(width: int, height: int) -> int:
    """Return the width that goes with a height of 64: a multiple of 8, from 64 to 320 pixels."""
    return min(320, max(64, 8 * ((16 * width + height) // (2 * height))))


def scale(pictures: np.ndarray, width: int | None = None) -> np.ndarray:
    """Scale uint8 RGB pictures (n, height, width, 3) for the network: (n, 64, `width`, 3).

    Their shape decides the width (`network_width`), unless it is given: a network with four heads
    has one width for all. The filter is Pillow's BILINEAR, which takes all pixels into account.
    Pictures that already have this size are returned as they are, not copied.
    """
    height = pictures.shape[1]
    width = width or network_width(pictures.shape[2], height)
    if pictures.shape[1:3] == (HEIGHT, width):
        return pictures
    return np.stack([np.asarray(_resize(Image.fromarray(picture), width)) for picture in pictures])


def _resize(image: Image.Image, width: int) -> Image.Image:
    return image.resize((width, HEIGHT), Image.Resampling.BILINEAR)


def to_pixels(picture: Picture, width: int | None = None) -> np.ndarray:
    """Bring a picture to what the network wants: uint8 RGB, (64, width, 3), read-only.

    Unless `width` is given, it follows from the picture's shape (`network_width`).

    Raises:
        UnreadablePicture: as `read_captcha`.
    """
    is_path = isinstance(picture, str | os.PathLike)
    # A file has a name, too.
    name = os.fsdecode(picture) if is_path else getattr(picture, "name", type(picture).__name__)
    content = picture
    try:
        with warnings.catch_warnings(action="ignore"):  # Pillow's, about what it can live with
            if is_path:
                content = Path(name).read_bytes()
            elif hasattr(picture, "read"):
                content = picture.read()
            image = on_ground(ImageOps.exif_transpose(_open(content)))
            while (inner := cut_margin(image)) is not image:  # a margin, then the line of a frame
                image = inner
            scaled = _resize(image, width or network_width(*image.size))
            smooth = image.height <= HEIGHT and is_grainy(np.asarray(image))
            return np.asarray(scaled.filter(SMOOTH) if smooth else scaled)
    except UnidentifiedImageError:
        svg = isinstance(content, bytes) and b"<svg" in content[:1_000]
        kinds = ", ".join(FORMATS)
        why = "this is an SVG drawing; save it as PNG" if svg else f"this is no picture ({kinds})"
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
        if picture.dtype != np.uint8 or picture.ndim < 2 or picture.shape[2:] not in CHANNELS:
            raise UnreadablePicture(
                f"{picture.dtype} of shape {picture.shape}; an array has to be uint8, (height, "
                "width) or with a last axis of 1, 3 or 4"
            )
        picture = Image.fromarray(picture[:, :, 0] if picture.shape[2:] == (1,) else picture)
    elif not isinstance(picture, Image.Image):
        raise UnreadablePicture("give a path, a file, bytes, a PIL image or an array")
    # The second picture in the JPEG of a phone (MPO) is a smaller one for its screen.
    if getattr(picture, "is_animated", False) and picture.format != "MPO":
        raise UnreadablePicture("this is animated or has several pages; save one frame of it")
    return picture


def on_ground(image: Image.Image) -> Image.Image:
    """Return an image of any mode as RGB; what is transparent in it becomes white.

    If less than half of the image is visible, the visible part is taken for ink. If this ink is
    very light (a mean luma above 192), the ground becomes black instead.
    """
    if image.mode[0] in "IF":  # 16 or 32 bits, or fractions: the largest value tells what is white
        values = np.nan_to_num(np.asarray(image, np.float32))
        white = next((top for top in (1, 255, 65_535) if values.max() <= top), values.max())
        image = Image.fromarray((255 * np.clip(values / white, 0, 1)).round().astype(np.uint8))
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        visible = np.asarray(image.getchannel("A"), float) / 255
        light = 0 < visible.mean() < 0.5 and np.average(image.convert("L"), weights=visible) > 192
        ground = Image.new("RGBA", image.size, "black" if light else "white")
        image = Image.alpha_composite(ground, image)
    return image.convert("RGB")


def cut_margin(image: Image.Image) -> Image.Image:
    """Cut off a margin of one colour that a straight edge on all sides separates from the paper.

    A margin in the colour of the paper stays: the network has practised with such margins. If
    there is nothing to cut off, the very same `image` is returned.
    """
    pixels = np.asarray(image, np.int16)
    differs = np.abs(pixels - pixels[0, 0]).max(axis=-1) > 4  # from the colour of the corner
    edges = []
    for counts in (differs.sum(axis=1), differs.sum(axis=0)):
        (inside,) = np.nonzero(counts >= max(1, 0.9 * counts.max()))
        if not inside.size or inside[0] == 0 or inside[-1] == len(counts) - 1:
            return image
        edges.append(slice(inside[0], inside[-1] + 1))
    box = differs[tuple(edges)]
    outside = (differs.sum() - box.sum()) / max(1, differs.size - box.size)
    border = min(line.mean() for line in (box[0], box[-1], box[:, 0], box[:, -1]))
    if min(box.shape) < 16 or outside > 0.01 or border < 0.95:
        return image
    rows, columns = edges
    return image.crop((columns.start, rows.start, columns.stop, rows.stop))


def is_grainy(pixels: np.ndarray) -> bool:
    """Return whether a picture, uint8 RGB (height, width, 3), has the grain of a JPEG.

    As a captcha is drawn, most neighbours on the paper have the very same colour. Lossy compression
    makes most of them differ by a few levels.
    """
    steps = np.abs(np.diff(pixels.astype(np.int16), axis=1)).max(axis=-1)
    small = steps[steps <= 8]
    return bool(2 * np.count_nonzero(small) > small.size)


def light_on_dark(pixels: np.ndarray) -> bool:
    """Return whether a picture, uint8 RGB (height, width, 3), has light ink on a dark ground."""
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    ground = np.median(luma)
    ink = luma[np.abs(luma - ground) > 32]
    return bool(ink.size and ink.mean() > ground)


# The network


@functools.cache
def _finished_network(path: Path) -> Network:
    return _load(check_weights(path, read_results("ctc")["onnx"]))


def load_network(path: str | os.PathLike | None = None) -> Network:
    """Load a network from an .onnx file that `make export` wrote; without one, the finished one.

    The file also holds its alphabet, and how pictures are brought to its size.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not an .onnx file of `make export`, it is damaged, of another version,
            or not made from the .keras file beside it.
    """
    if path is None:
        return _finished_network(find("ctc.onnx"))
    path = Path(path).expanduser()
    source = path.with_suffix(".keras")
    if path.suffix != ".onnx":
        raise ValueError(
            f"{path} is no .onnx file; `make export MODEL={source}` writes one from a .keras file"
        )
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}; `make export` writes it from {source}")
    return _load(path)


def _load(path: Path) -> Network:
    source = path.with_suffix(".keras")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    options.intra_op_num_threads = 1  # a captcha is so little work that sharing it costs more
    try:
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map
        stored, made_from = json.loads(metadata[PROPERTY]), metadata["sha256"]
        alphabet, width = stored["alphabet"], session.get_inputs()[0].shape[2]
        width = width if isinstance(width, int) else None  # a name stands for any width
        expected, characters = described(alphabet, width), len(alphabet)
        known = session.get_outputs()[0].shape[-1] - 1
    except Exception as error:  # ONNX Runtime's errors have no class in common
        raise ValueError(f"{path} is damaged, or not from `make export`: {error!r}") from error
    if source.exists() and made_from != sha256(source):
        raise ValueError(f"{path} was not made from the {source.name} beside it; "
                         f"`make export MODEL={source}` makes it anew")  # fmt: skip
    for name, value in expected.items():
        if (found := stored.get(name)) != value:
            raise ValueError(f"{path} has the {name} {found!r}, but only {value!r} is known here; "
                             "use the version of the lessons that wrote it")  # fmt: skip
    if known != characters:
        raise ValueError(f"{path} knows {known} characters, but its alphabet {alphabet!r} has "
                         f"{characters}; `make export MODEL={source} ALPHABET=01234` "
                         "stores its own")  # fmt: skip
    return Network(
        lambda pictures: session.run(["probabilities"], {"pictures": pictures})[0], alphabet, width
    )


# From answers to a text


def to_reading(
    columns: np.ndarray, alphabet: str, length: int | None = None, allowed: str | None = None
) -> Reading:
    """Read the text off the probabilities of each column, (steps, len(alphabet) + 1).

    The likeliest answers, without repetitions and blanks, are the text (lesson 3: greedy decoding);
    if none are left, there is nothing to read. If a `length` or the `allowed` characters are given,
    the text is the likeliest of those that fit and that a beam search finds.
    """
    label, share = greedy(columns), 1.0
    columns = columns.astype(np.float64) + 1e-30  # so that no sum below is 0
    if allowed:
        absent = [i for i, character in enumerate(alphabet, 1) if character not in allowed]
        columns[:, absent] = 0
        columns /= columns.sum(axis=1, keepdims=True)
    if len(label) and (length or allowed):
        label = likeliest(columns, length)
        share = chance_of_length(columns, length) if length else 1.0
    (chance,) = chances(columns, label[None])
    if not len(label) or not chance:  # there is nothing to read, or no room for it in the columns
        return Reading("", None, ())
    places, characters = len(label), len(alphabet)
    others = np.tile(label, (places, characters, 1))  # at each place every character
    others[range(places), :, range(places)] = np.arange(characters) + 1
    each = chances(columns, others.reshape(-1, places)).reshape(places, characters)
    each /= each.sum(axis=1, keepdims=True)
    best = np.argsort(-each, axis=1, kind="stable")[:, :BEST]
    allowed = allowed or alphabet
    alternatives = tuple(
        {alphabet[i]: round(float(row[i]), 6) for i in order if alphabet[i] in allowed}
        for row, order in zip(each, best, strict=True)
    )
    text = "".join(alphabet[answer - 1] for answer in label)
    return Reading(text, min(round(float(chance / share), 6), 1.0), alternatives)


def greedy(columns: np.ndarray) -> np.ndarray:
    """Return each column's likeliest answer, without repetitions and blanks, as classes."""
    path = columns.argmax(axis=-1)
    return path[(path != BLANK) & (path != np.append(BLANK, path[:-1]))]


def likeliest(columns: np.ndarray, length: int | None = None) -> np.ndarray:
    """Return the likeliest label of `length` classes, or of any number, that a beam search finds.

    From column to column it keeps the likeliest beginnings of each length. If there is no label of
    this length, the answer is empty.
    """
    beginnings = {(): (1.0, 0.0)}  # the probability of paths that end with a blank, and of others
    for column in columns:
        best = [(int(c), float(column[c])) for c in np.argsort(-column)[:LIKELY] if c != BLANK]
        grown = defaultdict(lambda: [0.0, 0.0])
        for label, (blank, other) in beginnings.items():
            last = label[-1] if label else BLANK
            grown[label][0] += (blank + other) * float(column[BLANK])
            grown[label][1] += other * float(column[last])
            if len(label) == length:
                continue
            for answer, chance in best:
                came = blank if answer == last else blank + other  # equal neighbours need a blank
                grown[(*label, answer)][1] += came * chance
        by_length = {}
        for label in sorted(grown, key=lambda x: sum(grown[x]), reverse=True):
            kept = by_length.setdefault(len(label) if length else 0, [])
            if len(kept) < BEAM:
                kept.append(label)
        beginnings = {label: grown[label] for kept in by_length.values() for label in kept}
    labels = [label for label in beginnings if length in (None, len(label))]
    return np.array(max(labels, key=lambda x: sum(beginnings[x]), default=()), int)


def chance_of_length(columns: np.ndarray, length: int) -> float:
    """Return how probable it is that the label has `length` classes, whichever: in [0, 1]."""
    sums = np.zeros((length + 1, columns.shape[1]))  # by classes so far, and the last answer
    sums[0, BLANK] = 1
    for column in columns:
        total = sums.sum(axis=1)
        reached = sums.copy()
        reached[1:] += total[:-1, None] - sums[:-1]  # a class that is not the last answer
        reached[:, BLANK] = total
        reached[0, BLANK + 1 :] = 0
        sums = reached * column
    return float(sums[length].sum())


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
