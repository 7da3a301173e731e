"""The daemons: settings -> open adapters -> loop -> stop."""
