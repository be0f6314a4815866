"""Train a network without a notebook: `make train MODEL=ctc SIZE=slim BUDGET=20min`.

Needs keras with a backend, captcha, numpy and tqdm; nothing of Jupyter:
`PYTHONPATH=. KERAS_BACKEND=jax python tools/train.py MODEL=ctc SIZE=full BUDGET=300000`.
"""

import json
import sys
from pathlib import Path

import options

DEFAULTS = {
    "MODEL": "ctc",  # or cnn
    "SIZE": "slim",  # or full; or gru, for ctc
    "BUDGET": "20min",  # minutes, or a number of pictures
    "OUT": "",  # a folder; the default is build/train/MODEL-SIZE
    "RESUME": "0",
    "FEED": "",  # "device", or the folder of a rendered set; without it, drawn on the fly
    "SEED": "2019",
    "EXTRA": "",  # characters to draw more often: with 0O0O, three times as many 0 and O
    "RATE": "0.002",  # the peak of the learning rate
    "START": "",  # a model.keras of an earlier run, whose weights this one trains further
    "BATCH": "32",  # small batches make many steps of few pictures, which is what a CPU wants
    "WORKERS": "2",  # threads that draw; on the fly, one of them works while the network does
}
ALLOWED = {
    "MODEL": "cnn|ctc one of cnn, ctc",
    "SIZE": "full|slim|gru one of full, slim, gru",
    "BUDGET": r"[1-9]\d*(min)? minutes as in 20min, or pictures as in 300000",
    "RESUME": "0|1 one of 0, 1",
    "SEED": options.WHOLE,
    "RATE": r"0\.\d*[1-9]\d* a number between 0 and 1, such as 0.002",
    "EXTRA": "[0-9A-Z]* digits and capitals, such as 0O0O",
    "BATCH": options.POSITIVE,
    "WORKERS": options.WHOLE,
}


def main() -> int:
    """Train as the options say; 3 if a signal stopped it, so that a script can tell."""
    chosen = options.read(sys.argv[1:], "train", DEFAULTS, ALLOWED)
    from notebooks_py.ch1_captcha_preview import CaptchaSequence
    from notebooks_py.ch4_gpu_training import (
        LABELS,
        PlannedSequence,
        RenderedSequence,
        full_training,
        measured_speed,
        read_note,
    )

    kind, size = chosen["MODEL"], chosen["SIZE"]
    out = Path(chosen["OUT"] or f"build/train/{kind}-{size}")
    batch, seed = int(chosen["BATCH"]), int(chosen["SEED"])
    more = {"labels": LABELS[kind], "extra": chosen["EXTRA"]}
    more |= {"workers": int(chosen["WORKERS"])}

    def make_source(steps: int) -> CaptchaSequence:
        if chosen["FEED"] == "device":
            return PlannedSequence(batch, steps, seed, **more)
        if chosen["FEED"]:  # a set that ends begins again
            drawn = max(1, read_note(Path(chosen["FEED"]))["pictures"] // batch)
            return RenderedSequence(Path(chosen["FEED"]), batch, min(steps, drawn), seed, **more)
        return CaptchaSequence(batch, steps, seed, **more)

    try:
        steps = earlier_steps(out) if chosen["RESUME"] == "1" else 0
        if not steps and chosen["BUDGET"].endswith("min"):
            speed = measured_speed(kind, size, make_source(19))
            steps = max(1, round(int(chosen["BUDGET"][:-3]) * 60 * speed / batch))
            print(f"{speed:.0f} pictures a second: {steps * batch:,} in {chosen['BUDGET']}")
        elif not steps:
            steps = -(-int(chosen["BUDGET"]) // batch)
        results = full_training(
            kind,
            size,
            make_source(steps),
            steps,
            out,
            resume=chosen["RESUME"] == "1",
            peak=float(chosen["RATE"]),
            start=Path(chosen["START"]) if chosen["START"] else None,
        )
    except (OSError, ValueError) as error:
        raise SystemExit(f"train: {error}") from error
    if results is None:
        print(f"stopped; the same command with RESUME=1 goes on from {out}")
        return 3
    print(f"written: {out}/model.keras, results.json, log.csv")
    return 0


def earlier_steps(folder: Path) -> int:
    """The number of steps of the run in `folder`, whose budget holds when it is resumed."""
    note = folder / "run.json"
    return json.loads(note.read_text()).get("steps", 0) if note.exists() else 0


if __name__ == "__main__":
    sys.exit(main())
