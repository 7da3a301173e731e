"""`python -m services.site.healthcheck`, see `services.healthcheck`."""

from services.healthcheck import main

main()
