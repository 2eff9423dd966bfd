"""Doors that lock: transport security, tokens with roles, and limits on what one caller may hold open."""
