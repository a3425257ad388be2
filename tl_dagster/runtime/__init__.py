"""What everything else stands on: errors, progress, hardware, library compatibility."""
