"""From features to models: the top model, fine-tuning, and what is measured of them."""
