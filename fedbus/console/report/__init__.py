"""A job as a report for people: what it is, who took part, what was measured, and what went wrong."""
