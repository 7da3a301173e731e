"""The aggregator daemon; start with `fedbus aggregator`."""
