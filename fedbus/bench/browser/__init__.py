"""The status page in a real browser: first paint, and whether it stays smooth with many sites and events."""
