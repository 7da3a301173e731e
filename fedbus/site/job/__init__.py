"""One job at a site: follow the model log, train, send updates."""
