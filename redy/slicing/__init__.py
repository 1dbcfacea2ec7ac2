"""Cutting a box into slices, reducing the network for each, and the family of networks that this gives."""
