"""Count what a network reads right on a named test set: `make evaluate MODEL=ctc SET=classic-10k`.

For a finished network of models/ the count is compared with the one that was written down.
"""

import sys
from pathlib import Path

import options

DEFAULTS = {
    "MODEL": "ctc",  # or cnn, ctc_pytorch, the finished ones; or any model.keras or slim model.pt
    "SET": "classic-10k",
}
FINISHED = {"cnn": ".keras", "ctc": ".keras", "ctc_pytorch": ".pt"}
ALLOWED = {
    "MODEL": rf"{'|'.join(FINISHED)}|.*\.(keras|pt) "
    f"one of {', '.join(FINISHED)}, or a .keras or .pt file"
}
NEAR = 3  # captchas that another machine may read otherwise, by rounding


def reader(path: Path, size: str = "slim"):
    """Return what reads uint8 pictures with the weights in a file of Keras or PyTorch."""
    if path.suffix == ".pt":
        from train_torch import load

        from notebooks_py.ch7_ctc_pytorch import read

        model = load(path, size)
    else:
        import keras

        from notebooks_py.ch4_gpu_training import read

        model = keras.models.load_model(path, compile=False)
    return lambda pictures: read(model, pictures)


def main() -> int:
    """Print the score; 1 if models/ tells another one."""
    chosen = options.read(sys.argv[1:], "evaluate", DEFAULTS, ALLOWED)
    options.import_quietly()
    from captcha_reader.scores import evaluate
    from captcha_reader.weights import MODELS, check_weights, read_results

    name, results = chosen["MODEL"], {"scores": {}, "size": "slim"}
    try:
        path = Path(name)
        if name in FINISHED:
            results = read_results(name, MODELS)
            path = check_weights(MODELS / f"{name}{FINISHED[name]}", results["sha256"])
        score = evaluate(reader(path, results["size"]), chosen["SET"])
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
