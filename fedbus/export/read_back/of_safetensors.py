"""A program of its own: read a safetensors file and write its tensors again. Knows nothing of fedbus or torch."""

import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import save


def main(artifact: str, _example: str, out: str) -> None:
    """Files: the model, nothing, one to be written with the same tensors."""
    with safe_open(artifact, framework="numpy") as file:
        Path(out).write_bytes(save({name: file.get_tensor(name) for name in file.keys()}))  # noqa: SIM118 no mapping


if __name__ == "__main__":
    main(*sys.argv[1:])
