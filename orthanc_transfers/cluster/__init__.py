"""Several Orthancs on one PostgreSQL: who receives which transfer, and what all of them know."""
