"""A ViT for SimSiam with what MoCo v3 found: fixed patches and positions, AdamW, a long warm-up."""
