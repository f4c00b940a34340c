"""Evaluators: what a proposal is worth. One file each."""
