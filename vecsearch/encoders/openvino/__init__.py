"""Encoders exported to OpenVINO: faster on a CPU, and loaded without torch."""
