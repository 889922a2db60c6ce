"""TensorFlow variables to oracle leaves and back: layouts, names, and readers of weight files."""
