"""The implementations of the operator family: four functions each, same signatures (docs/architecture.md)."""
