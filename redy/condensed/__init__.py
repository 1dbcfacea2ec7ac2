"""The folded form of a network over a box, the joint form of two, and the search over sub-boxes on it."""
