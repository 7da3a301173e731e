"""A site behind a slow, lossy link that can be cut: `line` the model, `namespace` and `link` the real packets, `run` the bench."""
