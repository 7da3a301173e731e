"""The pages of the status page, one module each: from what the aggregator answers to a template and what it shows."""
