"""How the pool of `nao_ray.pool` is kept: rows, storage, lease, compaction, queries."""
