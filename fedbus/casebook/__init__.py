"""A site's own cases under a job's model, as a page on the site's own disk. Nothing of it can reach the bus."""
