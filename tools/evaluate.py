"""Count what a network reads right on a named test set: `make evaluate MODEL=ctc SET=classic-10k`.

For a finished network of models/ the count is compared with the one that was written down.
"""

import sys
from pathlib import Path

from captcha_reader import scores, weights
from captcha_reader.texts import ALPHABET
from tools import options

with options.quietly():
    import keras

    from notebooks_py import ch4_gpu_training as ch4

DEFAULTS = {"MODEL": "ctc", "SET": "classic-10k"}
FINISHED = {"cnn": ".keras", "ctc": ".keras", "pytorch": ".pt"}
NAMES = ", ".join(FINISHED)  # or any model.keras, or slim model.pt
ALLOWED = {"MODEL": rf"{'|'.join(FINISHED)}|.*\.(keras|pt) one of {NAMES}, or a .keras or .pt file"}
NEAR = 3  # captchas that another machine may read otherwise, by rounding


def reader(path: Path, size: str = "slim"):
    """Return what reads uint8 pictures with the weights in a file of Keras or PyTorch.

    Raises:
        ValueError: the network knows other characters than the test sets have.
    """
    if path.suffix == ".pt":
        from tools import train_torch  # PyTorch is optional

        model, read = train_torch.load(path, size), train_torch.ch7.read
        return lambda pictures: read(model, pictures)
    model = keras.models.load_model(path, compile=False)
    last = model.layers[-1].output.shape[-1]  # one head, or the answers of a column and the blank
    characters = last - 1 if model.name == "ctc" else last
    if characters != len(ALPHABET):
        has = f"{path} knows {characters} characters, and the test sets have {len(ALPHABET)}"
        raise ValueError(f"{has}: {ALPHABET}")
    return lambda pictures: ch4.read(model, pictures)


def main() -> int:
    """Print the score; 1 if models/ tells another one."""
    chosen = options.read(sys.argv[1:], "evaluate", DEFAULTS, ALLOWED)
    name, results = chosen["MODEL"], {"scores": {}, "settings": {"SIZE": "slim"}}
    path = Path(name)
    try:
        if name in FINISHED:
            results = weights.read_results(name, weights.MODELS)
            path = weights.MODELS / f"{name}{FINISHED[name]}"
            weights.check_weights(path, results["sha256"])
        score = scores.evaluate(reader(path, results["settings"]["SIZE"]), chosen["SET"])
    except (OSError, ValueError, RuntimeError) as error:
        raise SystemExit(f"evaluate: {error}") from error
    print(score)
    if not (told := results["scores"].get(chosen["SET"])):
        return 0
    far = abs(score.right - told["right"]) > NEAR
    print(f"models/{name}.json has {told['right']:,}{f', more than {NEAR} away' if far else ''}")
    return int(far)


if __name__ == "__main__":
    sys.exit(main())
