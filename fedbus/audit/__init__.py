"""What daemons tell their audit log: lines from an event loop, logins, what has changed since the last start."""
