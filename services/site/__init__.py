"""The site daemon; start with `fedbus site` or `python -m services.site`."""
