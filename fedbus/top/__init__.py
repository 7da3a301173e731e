"""`fedbus top`: the jobs and sites of a federation as a live table, with keys."""
