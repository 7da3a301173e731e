"""`fedbus chaos`: a real job with real processes, killed, frozen and cut off on a seeded schedule, then checked."""
