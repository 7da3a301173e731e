"""Job specs: keys, limits and defaults, and how they are explained."""
