"""The aggregator daemon; start with `fedbus aggregator` or `python -m services.aggregator`."""
