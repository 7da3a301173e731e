"""A program of its own: load a MONAI bundle as MONAI does and write what it makes of an example. No fedbus in it.

The network comes from the bundle's own configs/inference.json, its params from models/model.pt by monai.bundle.load;
beside `output` the params that were loaded are written, for a state dict that fits nothing is loaded without a word.
"""

import sys
import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def main(artifact: str, example: str, out: str) -> None:
    """Files: the bundle's folder, a safetensors file with `input`, one for `output` and `params.NAME`."""
    warnings.simplefilter("ignore")
    from monai.bundle import ConfigParser, load

    folder = Path(artifact)
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser.read_meta(str(folder / "configs" / "metadata.json"))
    network = parser.get_parsed_content("network_def")
    load(folder.name, bundle_dir=str(folder.parent), model=network, source="github")
    network.eval()
    with torch.no_grad():
        output = network(load_file(example)["input"])
    params = {f"params.{name}": t.contiguous().clone() for name, t in network.state_dict().items()}
    save_file({"output": output.contiguous(), **params}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
