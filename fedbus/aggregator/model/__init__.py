"""The params of a job: made, kept, published."""
