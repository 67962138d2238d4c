"""What somebody adds to this project from outside: one file each, to copy. Nothing of the project imports these."""
