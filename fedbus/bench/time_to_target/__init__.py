"""Time to target in virtual time: our rules, textbook rules and unmodified peers in one loop, on the same tasks."""
