"""Repeated runs, searches and learning curves, each made of whole runs."""
