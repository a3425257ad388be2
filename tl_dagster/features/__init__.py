"""From views to bottleneck features: backbones, extraction and the feature cache."""
