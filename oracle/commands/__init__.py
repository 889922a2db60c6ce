"""The commands: one function each, which parses nothing, calls the library and returns the exit code."""
