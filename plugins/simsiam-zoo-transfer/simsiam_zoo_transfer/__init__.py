"""What features are good for: fine-tuning, attentive probes, backbones for detection."""
