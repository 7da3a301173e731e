"""A site behind a slow, lossy link that can be cut. `line` is the model, `link` real packets, `run` the benchmark."""
