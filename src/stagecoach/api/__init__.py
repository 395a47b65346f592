"""The door: HTTP in, flows called, answers shaped. It decides nothing."""
