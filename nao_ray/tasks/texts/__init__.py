"""What tasks of text are made of: no file here is a component."""
