"""`python -m services.site`: settings from FEDBUS_* and the TOML file."""

import sys

from services.site.start import start

sys.exit(start())
