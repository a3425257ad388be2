"""The command line: one file a command, found by its name; ``tables`` is what they share."""
