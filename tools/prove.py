"""Compare captchas drawn on the device with the library's: `make prove MODEL=build/train/ctc-slim`.

A model reads what the library drew, the same captchas replayed on the device, and others of these
texts that the device planned as well. Then a small network tries to tell the two kinds apart.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import options

DEFAULTS = {
    "MODEL": "build/train/ctc-slim",  # the folder of a run of `make train`
    "OUT": "models/drawing.json",
    "COUNT": "10000",  # captchas of each kind
    "SEED": "2019",
}
ALLOWED = {
    "OUT": r".+\.json a file that ends in .json",
    "COUNT": r"[1-9]\d*00 a multiple of 100",
    "SEED": options.WHOLE,
}
JUDGED = 10_000  # at most so many of each kind are there to be told apart


def collect(read: Callable, batches: int, seed: int) -> tuple[dict[str, int], dict]:
    """Draw `batches` of 100; return how many of each kind `read` has right, and some pictures."""
    import numpy as np
    from keras import ops
    from tqdm import tqdm

    from notebooks_py import ch4_gpu_training as ch4
    from notebooks_py.ch1_captcha_preview import random_texts, stream

    renderer = ch4.CaptchaRenderer()

    def stages(plan: dict) -> dict[str, np.ndarray]:
        layout = ch4.lay_out(plan, renderer.glyphs, renderer.tables.height)
        found = ch4.compiled(renderer.stages)(layout)
        rough = [ch4.unpack(found["add_noise"], i) for i in range(3)]
        rough = ops.transpose(ops.stack(rough, axis=-1), (0, 2, 1, 3))
        both = {"add_noise": rough, "smooth": found["smooth"]}
        return {name: ops.convert_to_numpy(x).astype(np.uint8) for name, x in both.items()}

    right, kept = {}, {"library": [], "device": [], "unsmoothed": []}
    for index in tqdm(range(batches), desc="drawing and reading", unit="00"):
        rng = stream(seed, "drawing", 0, index)
        texts = random_texts(rng, 100)
        library, plan = ch4.record_captchas(texts, rng, renderer)
        chance = np.random.default_rng([seed, index])
        own = stages(ch4.draw_plan(texts, chance, renderer.glyphs))
        for name, pictures in (
            ("library", library),
            ("replayed", stages(plan)["smooth"]),
            ("device", own["smooth"]),
        ):
            hits = sum(a == b for a, b in zip(read(pictures), texts, strict=True))
            right[name] = right.get(name, 0) + hits
        if index < JUDGED // 100:
            for name, these in zip(kept, (library, own["smooth"], own["add_noise"]), strict=True):
                kept[name].append(these)
    return right, {name: np.concatenate(pictures) for name, pictures in kept.items()}


def main() -> None:
    chosen = options.read(sys.argv[1:], "prove", DEFAULTS, ALLOWED)
    import keras

    from notebooks_py.ch2_cnn import wilson, write_json
    from notebooks_py.ch4_gpu_training import hardware, reader_of, tell_apart

    folder, seed, n = Path(chosen["MODEL"]), int(chosen["SEED"]), int(chosen["COUNT"])
    try:
        settings = json.loads((folder / "results.json").read_text())["settings"]
        model = keras.models.load_model(folder / "model.keras", compile=False)
    except (OSError, ValueError) as error:
        raise SystemExit(f"prove: {error}; name the folder of a finished run, MODEL=") from error
    right, kept = collect(reader_of(model), n // 100, seed)
    told = {
        name: tell_apart(kept[name], kept["library"], seed) for name in ("device", "unsmoothed")
    }
    command = f"make prove MODEL={folder} COUNT={n} SEED={seed}"
    results = {"command": command, "n": n, "seed": seed, "model": settings, "right": right}
    results |= {"interval": {name: wilson(count, n) for name, count in right.items()}}
    results |= {"told_apart": told, "hardware": hardware()}
    out = Path(chosen["OUT"])
    write_json(out, results)
    print(f"right of {n}: {right}; told apart: {told}; written: {out}")


if __name__ == "__main__":
    main()
