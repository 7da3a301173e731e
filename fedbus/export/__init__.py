"""Params as files for other programs."""
