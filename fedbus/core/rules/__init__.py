"""From updates to versions, in numbers: facts, aggregation, strategies, server step."""
