"""Figures and curves of an account."""
