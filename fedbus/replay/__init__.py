"""A job once more, offline, from the ledger and the bodies that an aggregator has left: verified, or without a site."""
