"""Worker actors on a Ray cluster: how many, where, what they are given, and what becomes of those that fail."""
