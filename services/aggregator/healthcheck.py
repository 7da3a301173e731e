"""`python -m services.aggregator.healthcheck`, with the aggregator's settings; see `services.healthcheck`."""

from fedbus.aggregator.settings import LOGIN, AggregatorSettings
from services.healthcheck import answer

answer(lambda: AggregatorSettings.load().url_for(LOGIN))
