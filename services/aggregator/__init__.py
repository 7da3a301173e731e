"""The aggregator as an operator runs it: `python -m services.aggregator`."""
