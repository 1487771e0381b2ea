"""Tune a model on placed runs."""
