"""Write a CTC network as ONNX: `make export`, or `make export MODEL=path.keras ALPHABET=01234`.

The network takes `pictures`, uint8 (n, 64, width, 3) of any width in eights, and gives
`probabilities`, float32 (n, steps, classes) with class 0 for the blank, and `classes`,
int64 (n, steps), the likeliest in each column. Its metadata hold the SHA-256 of the .keras file
and what is stored there (`captcha_reader.weights.describe`): alphabet, height, width and filter.
Keras' `model.export` names and orders the parts of the graph differently in each run; here equal
weights give equal bytes.

A finished network has a results file beside it, which gets the SHA-256 of the .onnx file. For
whoever reads the network in another language, a file such as models/ctc_examples.json then has five
pictures and what has to come out.
"""

import base64
import io
import json
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from captcha_reader.drawing import draw_captchas, random_size, stream
from captcha_reader.reading import PROPERTY, load_network, read_captcha, to_pixels
from captcha_reader.texts import ALPHABET, random_texts
from captcha_reader.weights import described, description, find, sha256
from tools import options, runs
from tools.lessons import write

OPSET, IR = 17, 8  # versions of ONNX that runtimes of these years read, in browsers as well
NEAR = 1e-4  # how far a probability may be from Keras'


def to_onnx(model, width: int | None, **metadata: str):
    """Return a network of `build_ctc` without GRUs as an `onnx.ModelProto`.

    It takes pictures `width` pixels wide, or of any width.
    """
    from notebooks_py.ch2_cnn import LUMA

    nodes, constants = [], []

    def add(operator: str, x: str, *values: np.ndarray, output: str = "", **attributes) -> str:
        """Add a node that takes `x` and constants; return the name of its output."""
        output = output or f"{operator}_{len(nodes)}"
        names = [f"{output}_{i}" for i in range(len(values))]
        for name, value in zip(names, values, strict=True):
            constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        nodes.append(helper.make_node(operator, [x, *names], [output], **attributes))
        return output

    x = add("Cast", "pictures", to=TensorProto.FLOAT)
    x = add("Transpose", x, perm=[0, 3, 1, 2])  # ONNX has channels first
    x = add("Div", x, np.array(255, "float32"))
    for layer in model.operations[1:]:
        weights = [np.asarray(value) for value in getattr(layer, "weights", [])]
        usual = "relu" if type(layer).__name__ == "Activation" else "linear"
        activation = getattr(getattr(layer, "activation", None), "__name__", usual)
        if activation != usual:
            raise ValueError(f"the layer {layer.name} ends with {activation}: only relu, in a "
                             "layer of its own, can be written as ONNX here")  # fmt: skip
        match type(layer).__name__:
            case "Multiply":  # this and the next two are `to_ink`
                x = add("Mul", x, LUMA.reshape(3, 1, 1))
            case "Sum":
                x = add("ReduceSum", x, np.array([1]))
            case "Subtract":
                x = add("Add", add("Neg", x), np.array(1, "float32"))
            case "Conv2D":
                weights[0] = weights[0].transpose(3, 2, 0, 1)
                x = add("Conv", x, *weights, strides=layer.strides, auto_pad="SAME_UPPER")
            case "BatchNormalization":
                x = add("BatchNormalization", x, *weights, epsilon=layer.epsilon)
            case "Activation":
                x = add("Relu", x)
            case "MaxPooling2D":
                x = add("MaxPool", x, kernel_shape=layer.pool_size, strides=layer.strides)
            case "Permute":
                x = add("Transpose", x, perm=[0, 3, 2, 1])
            case "Reshape":
                x = add("Reshape", x, np.array([0, *layer.target_shape]))  # -1: any width
            case "Dense":
                x = add("Add", add("MatMul", x, weights[0]), weights[1])
            case other:
                raise ValueError(f"the layer {layer.name} ({other}) can't be written as ONNX here")
    add("Softmax", x, axis=-1, output="probabilities")
    add("ArgMax", x, axis=-1, keepdims=0, output="classes")
    (_, height, _, colors), (_, steps, classes) = model.input_shape, model.output_shape
    tensor, shape = helper.make_tensor_value_info, ["n", steps or "steps", classes]
    pictures = tensor("pictures", TensorProto.UINT8, ["n", height, width or "width", colors])
    probabilities = tensor("probabilities", TensorProto.FLOAT, shape)
    outputs = [probabilities, tensor("classes", TensorProto.INT64, shape[:2])]
    graph = helper.make_graph(nodes, model.name, [pictures], outputs, constants)
    opsets = [helper.make_opsetid("", OPSET)]
    onnx = helper.make_model(graph, opset_imports=opsets, ir_version=IR, producer_name="captcha")
    helper.set_model_props(onnx, metadata)
    return onnx


def distance(content: bytes, model, width: int | None) -> float:
    """Return the largest difference between ONNX's and Keras' probabilities on 100 captchas."""
    import keras

    rng, apart = stream(0, "export", epoch=0, index=0), []
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    for each in 4 * [width] if width else [96, 128, 168, 256]:
        pictures = draw_captchas(random_texts(rng, 25), rng, each)
        (ours,) = session.run(["probabilities"], {"pictures": pictures})
        with keras.device("cpu"):  # a GPU may round more coarsely
            logits = model.predict_on_batch(pictures.astype("float32") / 255)
        theirs = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
        apart.append(np.abs(ours - theirs).max())
    return float(np.max(apart))


def export(source: Path, alphabet: str | None = None) -> bytes:
    """Return a .keras file as the content of an .onnx file that gives the same answers.

    Raises:
        ValueError: it is no network of `build_ctc`, or its alphabet has another size.
    """
    keras = options.import_keras()
    model = keras.models.load_model(source, compile=False)
    if model.name != "ctc":
        raise ValueError(f"{source} holds a network {model.name!r}, no CTC network of lesson 3")
    stored = description(source) or described(ALPHABET, model.input_shape[2])
    stored["alphabet"] = alphabet = alphabet or stored["alphabet"]
    width = None if stored["width"] == "free" else stored["width"]
    onnx = to_onnx(model, width, sha256=sha256(source), **{PROPERTY: json.dumps(stored)})
    characters = model.output_shape[-1] - 1
    if characters != len(alphabet):
        raise ValueError(f"{source} knows {characters} characters, but the alphabet {alphabet!r} "
                         f"has {len(alphabet)}; name its own, as in ALPHABET=01234")  # fmt: skip
    content = onnx.SerializeToString(deterministic=True)
    if not (far := distance(content, model, width)) <= NEAR:
        raise ValueError(f"probabilities are up to {far:.1e} away from Keras', more than {NEAR}")
    return content


def examples(path: Path) -> list[dict]:
    """Return five pictures, PNG in base64, and what the network in `path` makes of them."""
    rng, network, rows = stream(0, "examples", epoch=0, index=0), load_network(path), []
    for size in ((128, 64), *(random_size(rng) for _ in range(4))):
        pixels = draw_captchas(random_texts(rng, 1), rng, *size)[0]
        Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
        (columns,) = network.probabilities(to_pixels(pixels, network.width)[None])
        reading = read_captcha(pixels, model=network)
        row = {"png": base64.b64encode(file.getvalue()).decode(), "text": reading.text}
        row["confidence"] = reading.confidence
        row["probabilities"] = [[round(float(x), 5) for x in column] for column in columns]
        rows.append(row)
    return rows


def main(words: list[str] | None = None) -> None:
    """Write the file beside the .keras file, and print its size."""
    parser = options.parser("export", "Write a CTC network as ONNX, beside its .keras file.")
    parser.add_argument("--model", default="ctc", help="ctc, or the path of a .keras file")
    parser.add_argument("--alphabet", help="its characters in their order, if not stored in it")
    arguments = parser.parse_args(words)
    source = find("ctc.keras") if arguments.model == "ctc" else options.path(arguments.model)
    if source.suffix != ".keras" or not source.is_file():
        parser.error(f"--model={arguments.model} is neither ctc nor a .keras file that exists")
    content = export(source, arguments.alphabet)
    target, results = source.with_suffix(".onnx"), source.with_suffix(".json")
    print(f"{target}: {len(content):,} bytes, {'' if write(target, content) else 'un'}changed")
    if results.exists() and sha256(source) in results.read_text("utf-8"):
        record = json.loads(results.read_text("utf-8")) | {"onnx": sha256(target)}
        runs.write_json(results, record)
        path = source.with_name(f"{source.stem}_examples.json")
        write(path, json.dumps(examples(target)) + "\n")


if __name__ == "__main__":
    options.end_with(main)
