"""A network as ONNX answers as in Keras, and reads with its own alphabet."""

import json

import keras
import numpy as np
import pytest
from conftest import saved
from PIL import Image

from captcha_reader import reading
from captcha_reader.__main__ import main
from captcha_reader.weights import MODELS, describe, described, sha256
from notebooks_py.ch3_ctc import build_ctc, read_ctc

onnx = pytest.importorskip("onnx", reason="`make setup-onnx` adds it")
from tools import export  # noqa: E402


def test_the_finished_network_is_its_weights():
    """`export` compares with Keras; equal weights give equal bytes."""
    assert export.export(MODELS / "ctc.keras") == (MODELS / "ctc.onnx").read_bytes()


def test_a_network_of_ones_own_is_exported_and_reads_with_its_alphabet(tmp_path, capsys):
    source, target = tmp_path / "mine.keras", tmp_path / "mine.onnx"
    picture = tmp_path / "a.png"
    picture.write_bytes(saved(Image.effect_noise((170, 80), 50).point(lambda x: 200 + x // 8)))
    read = ["--model", str(target), str(picture)]

    def refused(command, words, message):
        with pytest.raises((SystemExit, ValueError)) as error:
            command(words)
        printed = f"{error.value}{capsys.readouterr().err}"
        assert message in printed and "git checkout" not in printed

    refused(export.main, ["--model=cnn"], "neither ctc nor a .keras file")
    refused(export.main, [f"--model={source}"], "mine.keras is neither ctc nor")
    refused(main, read, "there is no")
    build_ctc(4, filters=(4, 8), rnn=(4,)).save(source)
    refused(export.main, [f"--model={source}"], "(Bidirectional) can't be written")
    model = build_ctc(4, width=128, filters=(4, 8), norms="every", ink=False)
    rng = np.random.default_rng(1)  # no two norms alike
    *others, bias = (w + rng.normal(0, 0.05, w.shape) for w in model.get_weights())
    model.set_weights([*others, bias - [99, 0, 0, 0, 0]])  # never a blank
    model.save(source)
    refused(export.main, [f"--model={source}"], "knows 4 characters, but the alphabet '0123")
    describe(source, "acdx", 128)
    export.main([f"--model={source}"])
    assert main(read) == 0
    text = capsys.readouterr().out.splitlines()[-1].split()[1]
    assert [text] == read_ctc(model, reading.to_pixels(picture, 128)[None], "acdx")
    network, made_from = onnx.load(target), {"sha256": sha256(source)}
    others = [("version", 2), ("filter", "lanczos"), ("height", 48), ("width", "free")]
    for name, value in [*others, ("alphabet", "acd"), ("alphabet", "acdxy")]:
        stored = {reading.PROPERTY: json.dumps(described("acdx", 128) | {name: value})}
        onnx.helper.set_model_props(network, made_from | stored)
        onnx.save(network, target)
        refused(main, read, f"{name} {value!r}")
    refused(main, ["--model", str(source), str(picture)], f"`make export MODEL={source}`")
    layer = next(x for x in model.layers if isinstance(x, keras.layers.Activation))
    layer.activation = keras.activations.gelu
    model.save(source)
    refused(export.main, [f"--model={source}", "--alphabet=acdx"], "ends with gelu: only relu")
    refused(main, read, f"not made from the {source.name}")
    target.write_bytes(target.read_bytes()[:1_000])
    refused(main, read, "mine.onnx is damaged")
