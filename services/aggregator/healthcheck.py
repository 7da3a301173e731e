"""`python -m services.aggregator.healthcheck`, see `services.healthcheck`."""

from services.healthcheck import main

main()
