"""The submitter's side: publish job specs, ask, watch, fetch."""
