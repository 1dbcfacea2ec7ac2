"""ONNX, box JSON and VNN-LIB to and from the model; nothing behind this package knows a file format."""
