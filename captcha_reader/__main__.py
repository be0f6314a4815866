"""Read captchas from files: `python -m captcha_reader a.png b.png`."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence

from captcha_reader.reading import (
    UnreadablePicture,
    finished_network,
    load_network,
    read_captcha,
)

ABOUT = """\
Read captchas: for each file one line with its text and how sure the network is.

The finished network knows one style, the captchas that these lessons draw, in any size and with one
to six characters. It may have an answer to any other picture as well: a low percentage is the sign
that it means nothing."""


def main(words: Sequence[str] | None = None) -> int:
    """Read the named files; 1 if one of them can't be read."""
    parser = argparse.ArgumentParser(
        prog="python -m captcha_reader",
        description=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The exit status is 1 if a file can't be read; the others are read all the same.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", help="a picture")
    parser.add_argument(
        "--model",
        metavar="mine.onnx",
        help="a network of your own, as `make export MODEL=mine.keras` writes it; without this "
        "option, the finished network reads",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="one JSON object a line: file, text, confidence in [0, 1], and alternatives for each "
        "character; or file and error",
    )
    options = parser.parse_args(words)
    try:
        network = load_network(options.model) if options.model else finished_network()
    except (OSError, ValueError) as error:
        parser.error(str(error))
    failed = False
    for file in options.files:
        try:
            reading = read_captcha(file, network)
        except UnreadablePicture as error:
            failed = True
            if options.json:
                print(json.dumps({"file": file, "error": str(error)}))
            else:
                print(error, file=sys.stderr)
            continue
        if options.json:
            print(json.dumps({"file": file, **dataclasses.asdict(reading)}))
        else:
            print(f"{file}  {reading.text or '(nothing)'}  {100 * reading.confidence:.0f} %")
    return int(failed)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold any bytes
    sys.exit(main())
