"""One module for each family of ONNX operators; each registers its readers with `@reads`."""
