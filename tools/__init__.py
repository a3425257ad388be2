"""What contributors use; not part of the package."""
