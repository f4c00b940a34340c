"""Controllers: what a strategy learns with."""
