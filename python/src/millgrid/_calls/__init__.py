"""Calls of functions: how they travel, where they run, and how their results come back.

See `docs/decisions/2026-11-30-calls-of-functions.md`.
"""
