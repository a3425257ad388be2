"""The choice when and how to fine-tune: probes of the features, and the decision."""
