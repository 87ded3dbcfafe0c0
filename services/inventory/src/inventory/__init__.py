"""Seat holds and tickets."""
