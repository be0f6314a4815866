"""Count what a network reads right on a named test set: `make evaluate MODEL=ctc SET=classic-10k`.

For a finished network of models/ the count is compared with the one that was written down.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from captcha_reader import scores, weights
from captcha_reader.reading import scale
from captcha_reader.texts import ALPHABET
from tools import options

FINISHED = {"cnn": ".keras", "ctc": ".keras", "pytorch": ".pt"}
NEAR = 3  # captchas that another machine may read differently, because of rounding


def reader(path: Path, size: str = "slim") -> Callable:
    """Return a function that reads uint8 pictures with the weights in a Keras or PyTorch file.

    `size` is that of a PyTorch network, "slim" or "full"; a file of Keras knows its own.

    Raises:
        ValueError: it is another network, or knows other characters than the test sets have.
    """
    if path.suffix == ".pt":
        import torch  # it is optional

        from tools.train_torch import SIZES, ch7

        model = ch7.CTCNet(**SIZES[size])
        try:
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # PyTorch's errors have no class in common
            why = str(error).splitlines()[0]
            raise ValueError(f"{path} holds no {size} network of lesson 7: {why}") from error
        return lambda pictures: ch7.read_pictures(model, scale(pictures))
    keras = options.import_keras()
    from notebooks_py import ch4_gpu_training as ch4
    from tools.networks import NETWORKS

    model = keras.models.load_model(path, compile=False)
    if model.name not in NETWORKS:
        raise ValueError(f"{path} holds a network {model.name!r}, none of lessons 2 and 3")
    characters = model.layers[-1].output.shape[-1] - (model.name == "ctc")  # without the blank
    known = (weights.description(path) or {}).get("alphabet")  # `make tune` describes it
    if characters != len(ALPHABET) or known not in (None, ALPHABET):
        raise ValueError(f"{path} knows {known or f'{characters} characters'}, and the test sets "
                         f"have {len(ALPHABET)}: {ALPHABET}")  # fmt: skip
    return partial(ch4.read_pictures, model, decode=NETWORKS[model.name]["decode"])


def main() -> int:
    """Print the score; return 1 if models/ has another one."""
    parser = options.parser("evaluate", "Count what a network reads right on a named test set.")
    names = ", ".join(FINISHED)
    parser.add_argument("--model", default="ctc", help=f"{names}, or a .keras or slim .pt file")
    parser.add_argument("--set", default="classic-10k", choices=scores.TEST_SETS, help="a test set")
    given = parser.parse_args()
    name, path, size, recorded = given.model, options.path(given.model), "slim", {}
    if name in FINISHED:
        results = weights.read_results(name, weights.MODELS)
        size, recorded = results["settings"]["size"], results["scores"]
        path = weights.MODELS / f"{name}{FINISHED[name]}"
        weights.check_weights(path, results["sha256"])
    elif path.suffix not in FINISHED.values() or not path.is_file():
        parser.error(f"--model={name} is none of {names}, and no .keras or .pt file")
    score = scores.evaluate(reader(path, size), given.set)
    print(score)
    if given.set not in recorded:
        return 0
    right = recorded[given.set]["right"]
    far = abs(score.right - right) > NEAR
    print(f"models/{name}.json has {right:,}{f', more than {NEAR} away' if far else ''}")
    return int(far)


if __name__ == "__main__":
    options.end_with(main)
