"""What is measured on trained models."""
