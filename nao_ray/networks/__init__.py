"""Networks: an arch graph as a torch module."""
