"""Try each recipe of lesson 4 on the same captchas: `make ablation FEED=build/sets/classic`.

Each row is written when it is done, and a row that is there is not run again.
"""

import json
import multiprocessing
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import options

DEFAULTS = {
    "OUT": "models/ablation.json",
    "FEED": "build/sets/classic",
    "PICTURES": "100000",
    "SEED": "2019",
    "VALID": "2000",  # held-out captchas
    "ROWS": "",  # recipes, with a comma between them; all of them otherwise
}
ALLOWED = {
    "OUT": r".+\.json a file that ends in .json",
    "PICTURES": options.POSITIVE,
    "SEED": options.WHOLE,
    "VALID": options.POSITIVE,
}


def main() -> None:
    chosen = options.read(sys.argv[1:], "ablation", DEFAULTS, ALLOWED)
    from notebooks_py.ch2_cnn import write_json
    from notebooks_py.ch4_gpu_training import RECIPES

    known = {name.replace(" ", ""): name for name in RECIPES}  # make takes blanks away
    asked = [name for name in chosen["ROWS"].replace(" ", "").split(",") if name] or list(known)
    if unknown := set(asked) - set(known):
        raise SystemExit(f"ablation: no recipe {min(unknown)!r}; there are: {', '.join(RECIPES)}")
    names = [known[name] for name in asked]
    out = Path(chosen["OUT"])

    def finished() -> dict[str, dict]:
        return json.loads(out.read_text()) if out.exists() else {}

    for name in names:
        if name in finished():
            print(f"{name}: is in {out}")
            continue
        try:  # in a process of its own, since a process keeps the memory of all that it trained
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
                row = process.submit(try_row, name, chosen).result()
        except (OSError, ValueError) as error:
            raise SystemExit(f"ablation: {error}") from error
        # Read again: another process may have added a row meanwhile.
        rows = {**finished(), name: row}
        write_json(out, {n: rows[n] for n in RECIPES if n in rows})
        print(f"{name}: {row['right']} of {row['n']} after {row['pictures']} pictures")


def try_row(name: str, chosen: dict[str, str]) -> dict:
    """Train a recipe as the options say; return its row."""
    from notebooks_py.ch1_captcha_preview import CaptchaSequence
    from notebooks_py.ch4_gpu_training import (
        LABELS,
        RECIPES,
        Recipe,
        RenderedSequence,
        try_recipe,
    )

    recipe, seed = Recipe(**RECIPES[name]), int(chosen["SEED"])
    labels, steps = LABELS[recipe.kind], int(chosen["PICTURES"]) // recipe.batch
    source = RenderedSequence(Path(chosen["FEED"]), recipe.batch, steps, seed, labels=labels)
    valid = CaptchaSequence(int(chosen["VALID"]), 1, seed, split="valid", labels=labels)
    with tempfile.TemporaryDirectory() as folder:
        return try_recipe(name, source, valid[0], Path(folder))


if __name__ == "__main__":
    main()
