"""Try each recipe of lesson 4 on the same captchas: `make ablation FEED=build/sets/classic`.

Each row is written when it is done, and a row that is there is not run again.
"""

import json
import sys
import tempfile
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
    from notebooks_py.ch1_captcha_preview import CaptchaSequence
    from notebooks_py.ch2_cnn import replace_text
    from notebooks_py.ch4_gpu_training import RECIPES, Recipe, RenderedSequence, try_recipe

    known = {name.replace(" ", ""): name for name in RECIPES}  # make takes blanks away
    asked = [name for name in chosen["ROWS"].replace(" ", "").split(",") if name] or list(known)
    if unknown := set(asked) - set(known):
        raise SystemExit(f"ablation: no recipe {min(unknown)!r}; there are: {', '.join(RECIPES)}")
    names = [known[name] for name in asked]
    out, seed = Path(chosen["OUT"]), int(chosen["SEED"])

    def finished() -> dict[str, dict]:
        return json.loads(out.read_text()) if out.exists() else {}

    for name in names:
        if name in finished():
            print(f"{name}: is in {out}")
            continue
        recipe = Recipe(**RECIPES[name])
        labels = "ctc" if recipe.kind == "ctc" else "one-hot"
        steps = int(chosen["PICTURES"]) // recipe.batch
        try:
            source = RenderedSequence(
                Path(chosen["FEED"]), recipe.batch, steps, seed, labels=labels
            )
        except (OSError, ValueError) as error:
            raise SystemExit(f"ablation: {error}") from error
        valid = CaptchaSequence(int(chosen["VALID"]), 1, seed, split="valid", labels=labels)
        with tempfile.TemporaryDirectory() as folder:
            row = try_recipe(name, source, valid[0], Path(folder))
        # Read again: another process may have added a row meanwhile.
        rows = {**finished(), name: row}
        out.parent.mkdir(exist_ok=True)
        replace_text(out, json.dumps({n: rows[n] for n in RECIPES if n in rows}, indent=1) + "\n")
        print(f"{name}: {row['right']} of {row['n']} after {row['pictures']} pictures")


if __name__ == "__main__":
    main()
