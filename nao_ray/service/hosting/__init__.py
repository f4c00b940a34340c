"""Where a search runs and who looks after it: driver, controller, detached actor; manifest, metrics, loggers."""
