"""Mixed-integer programs: the program, the encoding of networks, the solvers, and bounds that need no trust in them."""
