"""Scaffolding: what notebooks 02 to 07 still import; each file goes when its notebook is rewritten."""
