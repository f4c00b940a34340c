"""Skeletons: ways of making a network from cells."""
