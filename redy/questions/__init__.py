"""Questions about one or two networks on a box, and who answers them."""
