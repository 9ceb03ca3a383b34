"""Training that the project owns: one small loop for every model."""
