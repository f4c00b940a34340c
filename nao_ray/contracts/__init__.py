"""What every component of a kind keeps, ours and the user's; `nao_ray.testing` is the door."""
