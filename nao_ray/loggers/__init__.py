"""Other places that learn of a search: each file is a logger, and none is the search's memory."""
