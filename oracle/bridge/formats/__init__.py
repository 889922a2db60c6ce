"""Weight files of every format: read into one `WeightFile`, and written from one.

The modules are imported by name, as `oracle.bridge.formats.reading`: the readers that run in processes of
their own import nothing that they do not need.
"""
