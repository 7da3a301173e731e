"""The documentation: what is made from the code, and the pages of all of it. Runs in a checkout only."""
