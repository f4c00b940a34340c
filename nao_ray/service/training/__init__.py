"""From a pool to a test score: finalists and full training."""
