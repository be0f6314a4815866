"""Draw a set of captchas once, for `make train FEED=`: `make render PICTURES=300000`."""

import os
import sys
from pathlib import Path

import options

DEFAULTS = {
    "OUT": "build/sets/classic",
    "PICTURES": "100000",
    "SEED": "2019",
    "BATCH": "32",  # the training batches that are the same with and without the set
    "PROCESSES": str(os.cpu_count() or 1),
}
ALLOWED = {
    "OUT": ".+ a folder",
    "PICTURES": options.POSITIVE,
    "SEED": options.WHOLE,
    "BATCH": options.POSITIVE,
    "PROCESSES": options.POSITIVE,
}


def main() -> None:
    chosen = options.read(sys.argv[1:], "render", DEFAULTS, ALLOWED)
    from notebooks_py.ch1_captcha_preview import CaptchaSequence
    from notebooks_py.ch4_gpu_training import render_set

    batch, folder = int(chosen["BATCH"]), Path(chosen["OUT"])
    source = CaptchaSequence(batch, -(-int(chosen["PICTURES"]) // batch), int(chosen["SEED"]))
    try:
        render_set(source, folder, int(chosen["PROCESSES"]))
    except OSError as error:
        raise SystemExit(f"render: {error}") from error
    except KeyboardInterrupt:
        raise SystemExit(
            "render: interrupted, so there is no set; the next try begins anew"
        ) from None
    print(f"written: {folder}, {batch * len(source):,} pictures")


if __name__ == "__main__":
    main()
