"""Training one network, or a shared one."""
