"""From arrays to the statistics of a data check: numpy, no torch, no I/O; for tasks, which add what they know."""
