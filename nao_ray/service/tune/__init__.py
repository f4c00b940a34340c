"""Ray Tune both ways: our strategies as its searcher, and finalists tuned by it."""
