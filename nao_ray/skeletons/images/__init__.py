"""What skeletons for images have in common."""
