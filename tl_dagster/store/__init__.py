"""The store: artifacts, digests, atomic files, and where everything lies."""
