"""What the statistics of sites show: findings that name the suspect, the figure and what to do. Pure, no I/O."""
