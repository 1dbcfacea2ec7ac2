"""Sound ranges of every pre-activation: interval bounds, linear bounds, smooth functions, splits of activations."""
