"""Reads the text of a response: where its answer stands, and what it is in one spelling."""
