"""Search spaces: what may be built. One file each; modules whose name starts with `_` are shared parts."""
