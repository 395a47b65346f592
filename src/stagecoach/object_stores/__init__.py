"""The plugs behind ``ports/object_store.py``: a real S3 store, the bundled one on disk, and one in memory for tests."""
