"""What evaluators are made of: no file here is a component."""
