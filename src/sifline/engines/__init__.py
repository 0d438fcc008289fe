"""One package or module for each engine; only it knows the engine's command line or API."""
