"""One torch thread per test process, as in a trainer: two on two busy cores are slower."""

import torch

torch.set_num_threads(1)
