"""Try what gets the network of lesson 3 past its plateau: `make plateau`; minutes.

Each training sees the same number of captchas, and then reads a thousand others; two seeds each,
because so early the start decides much. Each row is written when it is done, and a row that is
there is not run again.
"""

import json
import sys
from pathlib import Path

import options

DEFAULTS = {
    "OUT": "models/plateau.json",
    "PICTURES": "9600",
    "SEEDS": "2019,2020",
    "SET": "classic-1k",
}
ALLOWED = {
    "OUT": r".+\.json a file that ends in .json",
    "PICTURES": options.POSITIVE,
    "SEEDS": options.WHOLES,
}
TRIALS = {
    "batches of 128 at 1e-3": {"batch": 128, "rate": 1e-3, "rnn": ()},
    "batches of 16 at 2e-3": {"batch": 16, "rate": 2e-3, "rnn": ()},
    "batches of 16 at 2e-3, GRU": {"batch": 16, "rate": 2e-3, "rnn": (128,)},
}


def attempt(batch: int, rate: float, rnn: tuple, pictures: int, seed: int, test_set: str) -> dict:
    """Train one network; return its steps, its loss on held-out captchas, and its score."""
    import keras

    from notebooks_py.ch1_captcha_preview import CaptchaSequence
    from notebooks_py.ch2_cnn import evaluate
    from notebooks_py.ch3_ctc import build_ctc, compile_ctc, read_ctc

    keras.utils.set_random_seed(seed)
    model = build_ctc(filters=(16, 32, 64, 128), convs=1, stride=2, rnn=rnn, momentum=0.9)
    compile_ctc(model, rate)
    steps = -(-pictures // batch)
    data = CaptchaSequence(batch, steps, seed, labels="ctc", workers=2)
    valid = CaptchaSequence(512, 1, seed, labels="ctc", split="valid")
    model.fit(data, shuffle=False, verbose=1)
    loss = model.evaluate(*valid[0], batch_size=128, verbose=0, return_dict=True)["loss"]
    score = evaluate(lambda pictures: read_ctc(model, pictures), test_set)
    return {"steps": steps, "loss": round(float(loss), 2), **score.record()}


def main() -> None:
    chosen = options.read(sys.argv[1:], "plateau", DEFAULTS, ALLOWED)
    from notebooks_py.ch2_cnn import write_json
    from notebooks_py.ch4_gpu_training import hardware

    out, pictures = Path(chosen["OUT"]), int(chosen["PICTURES"])
    rows = json.loads(out.read_text())["runs"] if out.exists() else []
    for seed in map(int, chosen["SEEDS"].split(",")):
        for name, trial in TRIALS.items():
            facts = {"trial": name, "seed": seed, "pictures": pictures, "test_set": chosen["SET"]}
            if any(facts.items() <= row.items() for row in rows):
                print(f"{name}, seed {seed}: is in {out}")
                continue
            try:
                found = attempt(**trial, pictures=pictures, seed=seed, test_set=chosen["SET"])
            except ValueError as error:
                raise SystemExit(f"plateau: {error}") from error
            rows.append({**facts, **found})
            write_json(out, {"runs": rows, **hardware()})
            print(f"{name}, seed {seed}: loss {found['loss']}, {found['right']} right")


if __name__ == "__main__":
    main()
