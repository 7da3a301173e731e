"""The life of a job, and who takes part."""
