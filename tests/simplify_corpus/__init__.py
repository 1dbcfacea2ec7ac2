"""Pruned models made by script, with the cost of an ideal removal known from their making."""
