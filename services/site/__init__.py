"""The site daemon as an operator runs it: `python -m services.site`."""
