"""The task model on features that stay as they are: encoders and heads trained from scratch in every round."""
