"""The page of a pool in the browser: live from a server, or one file."""
