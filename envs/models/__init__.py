"""What a task model is, the kinds of it, and what is read off one: evidence, contribution, accuracy by row."""
