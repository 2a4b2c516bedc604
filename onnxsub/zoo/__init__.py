"""The model zoo: architectures A to G, their trainings, and their way to ONNX."""
