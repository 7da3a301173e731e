"""The annotation loop from end to end: labels come site by site, and the proposals get better."""
