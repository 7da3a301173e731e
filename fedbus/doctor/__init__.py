"""`fedbus doctor`: what is wrong between this machine and its federation, one line a check, each with what to do."""
