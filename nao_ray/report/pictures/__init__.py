"""Cells as pictures: how they are laid out, drawn as SVG or PNG, and shown as a film of a search."""
