"""Train a network without a notebook: `make train MODEL=ctc SIZE=slim BUDGET=20min`.

Needs keras with a backend, captcha, numpy and tqdm; nothing of Jupyter:
`PYTHONPATH=. KERAS_BACKEND=jax python tools/train.py MODEL=ctc SIZE=full BUDGET=300000`.
"""

import json
import os
import re
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

DEFAULTS = {
    "MODEL": "ctc",  # or cnn
    "SIZE": "slim",  # or full
    "BUDGET": "20min",  # minutes, or a number of pictures
    "OUT": "",  # a folder; the default is build/train/MODEL-SIZE
    "RESUME": "0",
    "FEED": "",  # the folder of a rendered set; without it, pictures are drawn on the fly
    "SEED": "2019",
    "BATCH": "32",  # small batches make many steps of few pictures, which is what a CPU wants
    "WORKERS": "4",
}


def stop(message: str) -> None:
    raise SystemExit(f"train: {message}")


def read_options(texts: list[str]) -> dict[str, str]:
    """NAME=value pairs over the defaults; anything that is not one of them ends the program."""
    options = dict(DEFAULTS)
    for text in texts:
        name, _, value = text.partition("=")
        if name not in DEFAULTS:
            stop(f"{name} is not an option; the options are {', '.join(DEFAULTS)}")
        options[name] = value
    for name, allowed in {
        "MODEL": ("cnn", "ctc"),
        "SIZE": ("slim", "full"),
        "RESUME": "01",
    }.items():
        if options[name] not in tuple(allowed):
            stop(f"{name}={options[name]} must be one of {', '.join(allowed)}")
    for name, least in {"SEED": 0, "BATCH": 1, "WORKERS": 0}.items():
        if not options[name].isdecimal() or int(options[name]) < least:
            stop(f"{name}={options[name]} must be a whole number of at least {least}")
    if not re.fullmatch(r"[1-9]\d*(min)?", options["BUDGET"]):
        stop(f"BUDGET={options['BUDGET']} must be minutes as in 20min, or pictures as in 300000")
    return options


def main() -> int:
    """Train as the options say; 3 if a signal stopped it, so that a script can tell."""
    options = read_options(sys.argv[1:])
    from notebooks_py.ch1_captcha_preview import CaptchaSequence
    from notebooks_py.ch4_gpu_training import RenderedSequence, full_training, measured_speed

    kind, size = options["MODEL"], options["SIZE"]
    out = Path(options["OUT"] or f"build/train/{kind}-{size}")
    batch, seed = int(options["BATCH"]), int(options["SEED"])
    more = {"labels": "ctc" if kind == "ctc" else "one-hot", "workers": int(options["WORKERS"])}

    def make_source(steps: int) -> CaptchaSequence:
        if options["FEED"]:
            return RenderedSequence(Path(options["FEED"]), batch, steps, seed, **more)
        return CaptchaSequence(batch, steps, seed, **more)

    try:
        steps = earlier_steps(out) if options["RESUME"] == "1" else 0
        if not steps and options["BUDGET"].endswith("min"):
            speed = measured_speed(kind, size, make_source(11))
            steps = max(1, round(int(options["BUDGET"][:-3]) * 60 * speed / batch))
            print(f"{speed:.0f} pictures a second: {steps * batch:,} in {options['BUDGET']}")
        elif not steps:
            steps = -(-int(options["BUDGET"]) // batch)
        results = full_training(
            kind, size, make_source(steps), steps, out, resume=options["RESUME"] == "1"
        )
    except (OSError, ValueError) as error:
        stop(str(error))
    if results is None:
        print(f"stopped; the same command with RESUME=1 goes on from {out}")
        return 3
    print(f"written: {out}/model.keras, results.json, log.csv")
    return 0


def earlier_steps(folder: Path) -> int:
    """The number of steps of the run in `folder`, whose budget holds when it is resumed."""
    note = folder / "run.json"
    return json.loads(note.read_text())["steps"] if note.exists() else 0


if __name__ == "__main__":
    sys.exit(main())
