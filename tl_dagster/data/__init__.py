"""From a source of labelled images to rows: sources, decoding, the manifest, splits and views."""
