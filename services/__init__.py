"""What an operator runs: one folder per daemon. No logic."""
