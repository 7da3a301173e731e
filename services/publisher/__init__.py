"""The submitter's side: publish job specs, ask, watch. Used by `fedbus submit`, `jobs`, `show`, `watch`, `abort`."""
