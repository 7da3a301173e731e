"""Curves of a job where people already look: a watcher like any other, and one sink a tool."""
