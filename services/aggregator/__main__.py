"""`python -m services.aggregator`: settings from FEDBUS_* and the TOML file."""

import sys

from services.aggregator.start import start

sys.exit(start())
