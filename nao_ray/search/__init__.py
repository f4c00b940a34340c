"""The search loop, its budget and its executors."""
