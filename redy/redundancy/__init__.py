"""The criteria of redundancy: each takes a network and facts and yields findings."""
