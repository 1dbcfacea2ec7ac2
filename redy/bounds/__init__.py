"""Sound ranges of pre-activations: interval, linear, and branching on the input box."""
