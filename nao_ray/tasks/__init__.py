"""Tasks: splits, metric and shapes. One file each; modules whose name starts with `_` are shared parts."""
