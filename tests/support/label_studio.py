"""Classes that Label Studio shows."""

from __future__ import annotations

CLASSES = (
    *("Activities", "Animals & Nature", "Food & Drink", "Objects", "People & Body"),
    *("Smileys & Emotion", "Symbols", "Travel & Places"),
)
