"""Finds the answer in a response and normalizes its spelling."""
