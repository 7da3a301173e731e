"""The site daemon; start with `fedbus site`."""
