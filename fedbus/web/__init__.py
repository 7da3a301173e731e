"""The status page: what travels on the bus, in a browser. A watcher like any other."""
