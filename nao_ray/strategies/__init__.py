"""Strategies: who proposes. One file each."""
