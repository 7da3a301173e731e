"""A program of its own: read an ONNX file and write what it makes of an example. Knows nothing of fedbus or torch.

It computes with the reference implementation of the onnx package, which is slow and says what the file means.
"""

import sys

import onnx
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import load_file, save_file


def main(artifact: str, example: str, out: str) -> None:
    """Files: the model, a safetensors file with `input`, one to be written with `output`."""
    onnx.checker.check_model(artifact)
    model = ReferenceEvaluator(artifact)
    (output,) = model.run(None, {model.input_names[0]: load_file(example)["input"]})
    save_file({"output": output.copy()}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
