"""A job in virtual time, without a broker: the production rules, tensors, codes and tasks under an injected clock."""

from fedbus.simulation.delays import constant, delays_of, mean_delay
from fedbus.simulation.loop import Simulation
from fedbus.simulation.presence import Presence
from fedbus.simulation.result import Point, Result, SiteReport
from fedbus.simulation.rules import ForeignRule
from fedbus.simulation.sites import SimulatedSite, make_sites, site_names

__all__ = [
    "ForeignRule",
    "Point",
    "Presence",
    "Result",
    "SimulatedSite",
    "Simulation",
    "SiteReport",
    "constant",
    "delays_of",
    "make_sites",
    "mean_delay",
    "site_names",
]
