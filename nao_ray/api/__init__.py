"""What `import nao_ray` gives: pools, studies and searches for scripts and notebooks."""
