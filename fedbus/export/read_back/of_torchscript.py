"""A program of its own: read a TorchScript file and write what it makes of an example. Knows nothing of fedbus."""

import sys
import warnings

import torch
from safetensors.torch import load_file, save_file


def main(artifact: str, example: str, out: str) -> None:
    """Files: the model, a safetensors file with `input`, one to be written with `output`."""
    warnings.simplefilter("ignore")
    model = torch.jit.load(artifact).eval()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        save_file({"output": model(load_file(example)["input"]).contiguous()}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
