"""What skeletons of networks for text are made of: no file here is a component."""
