"""`fedbus bench abuse`: a site sends whatever bytes it likes; what becomes of them, and of the updates of others."""
