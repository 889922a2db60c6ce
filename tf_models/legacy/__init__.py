"""TF1 graphs that TensorFlow 2 loads and cannot differentiate, each the shortest that shows its cause."""
