"""What the aggregator says: to sites, to watchers, of refused messages."""
