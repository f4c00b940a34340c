"""Searches as jobs of a Ray cluster: packed, handed in, looked up, stopped."""
