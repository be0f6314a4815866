"""A network as ONNX answers as in Keras, and reads with its own alphabet."""

import itertools

import keras
import numpy as np
import onnxruntime
import pytest
from conftest import saved
from PIL import Image

from captcha_reader import reading
from captcha_reader.__main__ import main
from captcha_reader.weights import MODELS
from notebooks_py.ch3_ctc import build_ctc
from tools import export

onnx = pytest.importorskip("onnx", reason="`make setup-onnx` adds it")


def test_the_finished_network_is_its_weights():
    """`export` compares with Keras; equal weights give equal bytes."""
    assert export.export(MODELS / "ctc.keras") == (MODELS / "ctc.onnx").read_bytes()


@pytest.mark.parametrize("options", [
    {"norms": "once", "stride": 2}, {"norms": "every", "width": 192, "classes": 10, "ink": False}
])  # fmt: skip
def test_networks_of_free_and_of_one_width_answer_as_in_keras(options):
    small = build_ctc(filters=(4, 8), tall=1, **options)
    rng = np.random.default_rng(1)  # no two norms alike
    small.set_weights([w + rng.normal(0, 0.05, w.shape) for w in small.get_weights()])
    content = export.to_onnx(small).SerializeToString()
    assert export.distance(content, small) < export.NEAR
    small.set_weights([1.01 * w for w in small.get_weights()])
    assert export.distance(content, small) > export.NEAR  # so a difference would be seen


def with_gelu(layer):
    """Copy a layer with another activation."""
    settings = layer.get_config()
    return type(layer).from_config(settings | {k: "gelu" for k in settings if k == "activation"})


def test_what_cannot_be_written_is_refused_by_name():
    with pytest.raises(ValueError, match="Bidirectional"):
        export.to_onnx(build_ctc(filters=(4, 8), rnn=(4,)))
    other = keras.models.clone_model(build_ctc(filters=(4, 8)), clone_function=with_gelu)
    with pytest.raises(ValueError, match="gelu.* only relu"):
        export.to_onnx(other)


def test_a_network_of_ones_own_is_exported_and_reads_with_its_alphabet(tmp_path, capsys):
    source, target = tmp_path / "mine.keras", tmp_path / "mine.onnx"
    picture = tmp_path / "a.png"
    picture.write_bytes(saved(Image.effect_noise((170, 80), 50)))
    read = ["--model", str(target), str(picture)]

    def refused(command, words, message):
        with pytest.raises(SystemExit):
            command(words)
        assert message in (error := capsys.readouterr().err) and "git checkout" not in error

    refused(export.main, [f"--model={source}"], f"there is no .keras file {source}")
    refused(main, read, "there is no")
    model = build_ctc(4, width=128, filters=(4, 8))
    *others, bias = model.get_weights()
    model.set_weights([*others, bias - [99, 0, 0, 0, 0]])  # never a blank
    model.save(source)
    refused(export.main, [f"--model={source}"], "knows 4 characters, but the alphabet '0123")
    assert export.main([f"--model={source}", "--alphabet=acdx"]) == 0
    assert main(read) == 0
    text = capsys.readouterr().out.splitlines()[-1].split()[1]
    pixels = reading.to_pixels(picture, 128)[None]
    (path,) = onnxruntime.InferenceSession(target).run(["classes"], {"pictures": pixels})[0]
    assert text == "".join("-acdx"[answer] for answer, _ in itertools.groupby(path))
    refused(main, ["--model", str(source), str(picture)], f"`make export MODEL={source}`")
    build_ctc(4, width=128, filters=(4, 8)).save(source)  # trained on, and not exported anew
    refused(main, read, f"not made from the {source.name}")
    target.write_bytes(target.read_bytes()[:1_000])
    refused(main, read, "mine.onnx is damaged")
