"""Write a CTC network as ONNX: `make export`, or `make export MODEL=path.keras ALPHABET=01234`.

The network takes `pictures`, uint8 (n, 64, width, 3) of any width in eights, and gives
`probabilities`, float32 (n, steps, classes) with class 0 for the blank, and `classes`,
int64 (n, steps), the likeliest in each column. Its metadata hold the alphabet and the
SHA-256 of the .keras file. Keras' `model.export` names and orders the parts of the graph
differently in each run; here equal weights give equal bytes.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from captcha_reader.drawing import draw_captchas, stream
from captcha_reader.texts import random_texts
from captcha_reader.weights import description, find, sha256
from tools import options
from tools.lessons import write

OPSET, IR = 17, 8  # versions of ONNX that runtimes of these years read, in browsers as well
NEAR = 1e-4  # how far a probability may be from Keras'


def to_onnx(model, **metadata: str):
    """Return a network of `build_ctc` without GRUs as an `onnx.ModelProto`."""
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
    (_, height, width, colors), (_, steps, classes) = model.input_shape, model.output_shape
    tensor, shape = helper.make_tensor_value_info, ["n", steps or "steps", classes]
    pictures = tensor("pictures", TensorProto.UINT8, ["n", height, width or "width", colors])
    probabilities = tensor("probabilities", TensorProto.FLOAT, shape)
    outputs = [probabilities, tensor("classes", TensorProto.INT64, shape[:2])]
    graph = helper.make_graph(nodes, model.name, [pictures], outputs, constants)
    opsets = [helper.make_opsetid("", OPSET)]
    onnx = helper.make_model(graph, opset_imports=opsets, ir_version=IR, producer_name="captcha")
    helper.set_model_props(onnx, metadata)
    return onnx


def distance(content: bytes, model) -> float:
    """Return how far probabilities of an ONNX file are from Keras' on 100 captchas, at most."""
    import keras

    rng, largest = stream(0, "export", epoch=0, index=0), 0.0
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    height, width = model.input_shape[1:3]
    for w in (width,) if width else (96, 128, 168, 256):
        pictures = draw_captchas(random_texts(rng, 25), rng, w, height)
        (ours,) = session.run(["probabilities"], {"pictures": pictures})
        with keras.device("cpu"):  # a GPU may round more coarsely
            logits = model.predict_on_batch(pictures.astype("float32") / 255)
        theirs = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
        largest = max(largest, float(np.abs(ours - theirs).max()))
    return largest


def export(source: Path, alphabet: str | None = None) -> bytes:
    """Return a .keras file as the content of an .onnx file that gives the same answers."""
    with options.quietly():
        import keras

    model = keras.models.load_model(source, compile=False)
    alphabet = alphabet or description(source)["alphabet"]
    onnx = to_onnx(model, sha256=sha256(source), alphabet=alphabet)
    characters = model.output_shape[-1] - 1
    if characters != len(alphabet):
        raise ValueError(
            f"{source} knows {characters} characters, but the alphabet {alphabet!r} has "
            f"{len(alphabet)}; name its own, as in ALPHABET=01234"
        )
    content = onnx.SerializeToString(deterministic=True)
    if not (far := distance(content, model)) <= NEAR:
        raise ValueError(f"probabilities are up to {far:.1e} away from Keras', more than {NEAR}")
    return content


def main(words: list[str] | None = None) -> int:
    """Write the file beside the .keras file, and print its size."""
    parser = options.parser("export", "Write a CTC network as ONNX, beside its .keras file.")
    parser.add_argument("--model", default="ctc", help="ctc, or the path of a .keras file")
    parser.add_argument("--alphabet", help="its characters, in their order")
    arguments = parser.parse_args(words)
    try:
        source = find("ctc.keras") if arguments.model == "ctc" else Path(arguments.model)
        content = export(source, arguments.alphabet)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    target = source.with_suffix(".onnx")
    print(f"{target}: {len(content):,} bytes, {'' if write(target, content) else 'un'}changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
