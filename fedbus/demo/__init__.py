"""`fedbus demo`: four hospitals on one machine, one late, one that leaves and comes back. Begins in `run`."""
