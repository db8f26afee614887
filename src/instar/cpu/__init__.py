"""Processors of the guest."""
