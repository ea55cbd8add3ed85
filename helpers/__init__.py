"""Mechanisms behind the notebooks: each is written once, here, and explained where it is used."""
