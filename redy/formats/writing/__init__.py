"""One module for each family of nodes that the writer spells in ONNX operators."""
