"""The story of a transfer, one verb a file. Flows decide with ``core`` and act through ``ports`` and ``database``."""
