"""Boards: one module for each; its address map, devices and device tree."""
