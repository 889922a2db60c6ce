"""Ports: the TF1 original, the broken conversions, and the right one. Importing this imports nothing."""
