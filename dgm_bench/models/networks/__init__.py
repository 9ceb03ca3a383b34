"""Networks and operations that several families are built from."""
