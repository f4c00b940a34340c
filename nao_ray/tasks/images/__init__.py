"""Tasks of labelled images: what those in the folder above are made of."""
