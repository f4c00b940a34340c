"""What tasks of every family are made of: no file here is a component."""
