"""Count what a network reads right on a named test set: `make evaluate MODEL=ctc SET=classic-10k`.

For a finished network of models/ the count is compared with the one that was written down.
"""

import sys
from pathlib import Path

import options

DEFAULTS = {
    "MODEL": "ctc",  # or cnn, the finished ones; or any model.keras
    "SET": "classic-10k",
}
NEAR = 3  # captchas that another machine may read otherwise, by rounding


def main() -> int:
    """Print the score; 1 if models/ tells another one."""
    chosen = options.read(sys.argv[1:], "evaluate", DEFAULTS, {})
    import keras

    from notebooks_py.ch2_cnn import MODELS, evaluate, finished
    from notebooks_py.ch4_gpu_training import reader_of

    name, written = chosen["MODEL"], None
    try:
        if name.endswith(".keras"):
            model = keras.models.load_model(Path(name), compile=False)
        else:
            model, results = finished(name, MODELS)
            written = results["scores"].get(chosen["SET"])
        score = evaluate(reader_of(model), chosen["SET"])
    except (OSError, ValueError, RuntimeError) as error:
        raise SystemExit(f"evaluate: {error}") from error
    print(score)
    if written is None:
        return 0
    told, source = written["right"], f"{MODELS.name}/{name}.json"
    if abs(score.right - told) > NEAR:
        print(f"evaluate: {source} has {told:,}, more than {NEAR} away")
        return 1
    print(f"{source} has {told:,}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
