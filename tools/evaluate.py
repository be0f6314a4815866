"""Count what a network reads right on a named test set: `make evaluate MODEL=ctc SET=classic-10k`.

For a finished network of models/ the count is compared with the one that was written down.
"""

import sys

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

    from captcha_reader.scores import evaluate
    from captcha_reader.weights import MODELS, finished
    from notebooks_py.ch4_gpu_training import read

    name, results = chosen["MODEL"], {"scores": {}}
    try:
        if name.endswith(".keras"):
            model = keras.models.load_model(name, compile=False)
        else:
            model, results = finished(name, MODELS)
        score = evaluate(lambda pictures: read(model, pictures), chosen["SET"])
    except (OSError, ValueError, RuntimeError) as error:
        raise SystemExit(f"evaluate: {error}") from error
    print(score)
    if told := results["scores"].get(chosen["SET"]):
        near = abs(score.right - told["right"]) <= NEAR
        note = "" if near else f", more than {NEAR} away"
        print(f"models/{name}.json has {told['right']:,}{note}")
        return int(not near)
    return 0


if __name__ == "__main__":
    sys.exit(main())
