"""All or nothing on several databases, and what is told to others once and for all.

XA transactions with their decision log and recovery, best effort commits. Decisions
only: what waits is in the implementations.
"""
