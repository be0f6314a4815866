"""Read captchas from files: `python -m captcha_reader a.png b.png`, or `captcha-reader a.png`."""

import argparse
import dataclasses
import glob
import io
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from captcha_reader.reading import UnreadablePicture, load_network, read_captcha

ABOUT = """\
Read captchas: for each file one line with its text and how sure the network is.

The finished network knows one style, the captchas that these lessons draw, in any size and with one
to six characters. It may misread any other picture: a low percentage warns of that, but a high one
proves nothing."""
ENDINGS = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ppm"}
MOST = 25_000_000  # bytes from standard input


class StandardInput:
    """What comes from standard input: a file that can be read once, and is named -."""

    name = "-"

    def read(self) -> bytes:
        """Return all of it, or raise UnreadablePicture if that is more than MOST bytes."""
        content = getattr(sys.stdin, "buffer", io.BytesIO()).read(MOST + 1)
        if len(content) > MOST:
            raise UnreadablePicture("more than 25 MB came; save it, and give the file's name")
        return content


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="captcha-reader",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The exit status is 1 if a file can't be read; the others are read all the same.",
    )
    add = parser.add_argument
    add(
        "files",
        nargs="+",
        metavar="FILE",
        help="a picture, a folder of pictures, a pattern such as 'imgs/*.png', or - for what comes "
        "from standard input",
    )
    add("--length", type=int, metavar="4", help="how many characters each text has")
    add("--alphabet", metavar="0123456789", help="the characters that can occur")
    add("--model", metavar="mine.onnx", help="a network of your own, as `make export` writes it")
    add(
        "--json",
        action="store_true",
        help="one JSON object a line: file, text, confidence in [0, 1] or null, and alternatives "
        "for each character; or file and error",
    )
    return parser


def pictures(names: Sequence[str]) -> Iterator[str]:
    """Yield the names of pictures: a folder stands for those in it, a pattern for its matches."""
    for name in names:
        # A pattern may be there that the shell has not expanded.
        matches = [] if os.path.exists(name) else sorted(glob.glob(name))
        for match in matches or [name]:
            inside = sorted(Path(match, path) for path in glob.glob("*", root_dir=match))
            paths = [path for path in inside if path.suffix.lower() in ENDINGS]
            yield from map(str, paths or [match])  # without pictures, its own name ends in an error


def printable(text: str) -> str:
    """Return a text in one line, with escapes where a character can't be printed."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def main(words: Sequence[str] | None = None) -> int:
    """Read the named files; return 1 if one of them can't be read, else 0."""
    parser = make_parser()
    options = parser.parse_args(words)
    failed = False
    try:
        network = load_network(options.model)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    try:
        for name in pictures(options.files):
            source = StandardInput() if name == "-" else name
            try:
                reading = read_captcha(source, options.length, options.alphabet, network)
                answer = dataclasses.asdict(reading)
            except UnreadablePicture as error:
                folder = os.path.isdir(name) and os.access(name, os.R_OK)
                message = f"{name}: there is no picture in this folder" if folder else str(error)
                failed, answer = True, {"error": message}
            if options.json:
                print(json.dumps({"file": name} | answer, allow_nan=False))
            elif "error" in answer:
                print(printable(answer["error"]), file=sys.stderr)
            elif reading.text:
                print(f"{printable(name)}  {reading.text}  {100 * reading.confidence:.0f} %")
            else:
                print(f"{printable(name)}  (no characters found)")
    except ValueError as error:  # of an option, such as --length=0
        parser.error(str(error))
    return int(failed)


def run() -> int:
    """Call `main` in a terminal: if output can't be written, end with one line, or with none."""
    sys.stderr = sys.stderr or io.StringIO()  # without one, print would take standard output
    if sys.stdout is None:
        print("captcha-reader: there is no standard output to write to", file=sys.stderr)
        return 1
    sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold any bytes
    try:
        code = main()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130  # as shells say that Ctrl-C ended a command
    except BrokenPipeError:
        pass  # whoever read the output has seen enough, as `head` does
    except OSError as error:  # such as a full disk
        print(f"captcha-reader: the output can't be written: {error.strerror}", file=sys.stderr)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing is left to flush
    return 1


if __name__ == "__main__":
    sys.exit(run())
