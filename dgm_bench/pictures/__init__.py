"""Pictures of what a trained model draws, encodes and reconstructs; they need torch."""
